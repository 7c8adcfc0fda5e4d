//! What every row of the matrix holds to, whatever happens in it.

use std::process::Output;

use crate::snapshot::Snapshot;
use crate::world::Lab;

/// The host is as it was; then a `create` succeeds, `destroy` does it twice, and the host is as it was again.
#[track_caller]
pub(super) fn keep(lab: &Lab, before: &Snapshot) {
    same(before, "after the fault");
    lab.ok(&["create"]);
    lab.ok(&["plan", "--check"]);
    let (now, name) = (Snapshot::take(), lab.name.as_str());
    assert!(!before.differences(&now).is_empty(), "a create that changes nothing proves nothing");
    lab.ok(&["destroy", "--stop", "--purge", name]);
    lab.ok(&["destroy", "--stop", "--purge", name]);
    same(before, "after the end");
}

/// Nothing of the host differs from what it was.
#[track_caller]
pub(super) fn same(before: &Snapshot, when: &str) {
    let mut differences = before.differences(&Snapshot::take());
    // What the kernel tears down in the background, and a process that is about to end, may need a moment.
    for _ in 0..20 {
        if differences.is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        differences = before.differences(&Snapshot::take());
    }
    panic!("{when}:\n{}", differences.join("\n"));
}

/// What the program said on both channels.
pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs the program, which must end with this exit code and say all of these.
#[track_caller]
pub(super) fn ends(lab: &Lab, args: &[&str], code: i32, says: &[&str]) -> String {
    let output = lab.vmnet(args);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "vmnet {args:?}: {text}");
    for part in says {
        assert!(text.contains(part), "vmnet {args:?} does not say «{part}»: {text}");
    }
    text
}
