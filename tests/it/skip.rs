//! What a test does that can't run here: say so, visibly, or fail.

use std::io::Write;

/// Says that a test is skipped, and why, as `SKIP name: reason` on the real stderr (the harness hides what a passing
/// test prints): `tests/all` reads these lines and runs those tests in the kernel lab. There, and wherever
/// `VMNET_NO_SKIP` is set, nothing may be skipped.
pub(crate) fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("VMNET_NO_SKIP").is_none(), "nothing may be skipped, and {name} {reason}");
    say(&format!("SKIP {name}: {reason}"));
}

/// [`skip`] for the test that runs on this thread, which the harness names after it.
pub(crate) fn skip_this(reason: &str) {
    let thread = std::thread::current();
    skip(thread.name().unwrap_or("a test without a name"), reason);
}

/// Writes a line to the real stderr.
pub(crate) fn say(line: &str) {
    // Only a closed stderr could make it fail, and then nobody reads it.
    let _ = writeln!(std::io::stderr(), "{line}");
}
