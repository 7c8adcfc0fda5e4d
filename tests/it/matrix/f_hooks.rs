//! F. Hooks.

use super::row;
use crate::snapshot::Snapshot;
use crate::world::Lab;

const LAB: &str = "lab = \"hooks\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"isolated\"\n";

/// No argument, two, an unknown, a 16-character and a slashed name: exit 2, and nothing is changed.
#[test]
fn row_57_wrong_arguments() {
    row!(|| {
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        let before = Snapshot::when_settled();
        let wrong: [&[&str]; 6] = [&[], &["a", "b"], &["absent0"], &["sixteen-letters-"], &["../lo"], &[""]];
        for arguments in wrong {
            for hook in ["qemu-ifup", "qemu-ifdown"] {
                let ran = std::process::Command::new(lab.hook("web", hook)).args(arguments).output().unwrap();
                // A TAP that is gone is nothing to take off a bridge.
                let expected = if hook == "qemu-ifdown" && arguments == ["absent0"] { 0 } else { 2 };
                assert_eq!(ran.status.code(), Some(expected), "{hook} {arguments:?}: {ran:?}");
            }
        }
        let differences = before.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        super::tally("wrong arguments", wrong.len() * 2, 0);
        lab.ok(&["destroy"]);
    });
}
