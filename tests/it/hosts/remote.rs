//! vmnet on other hosts over real ssh connections, and everything that becomes of them.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vmnet::remote::{Event, Place, RemoteError, Trouble};

use super::{Hosts, can, masters, there_is, until, wait_for};
use crate::sandbox;
use crate::skip::skip_this;
use crate::world::output;

/// A dead link is noticed within this, which is a little more than ssh's own questions take.
const SOON: Duration = Duration::from_secs(16);

const LAB: &str = "lab = \"far\"\n[defaults.vm]\nengine = \"netns\"\n[router]\nexternal = { via = \"none\" }\n\
                   [network.web]\nmode = \"routed\"\nsubnet = \"10.1.0.0/24\"\n[vm.vm1]\nnic = \"web\"\n";

fn connect(number: usize) -> Place {
    wait_for(Place::connect(&format!("h{number}"), &format!("h{number}"))).unwrap()
}

fn no_connection(destination: &str) -> RemoteError {
    wait_for(Place::connect("h1", destination)).unwrap_err()
}

/// All that people would read.
fn text(error: &RemoteError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text + "; " + &error.help().unwrap_or_default()
}

#[track_caller]
fn says(error: &RemoteError, words: &[&str]) {
    let text = text(error);
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

/// The processes of ssh by which commands run.
fn clients() -> Vec<Pid> {
    let is_client = |line: &&str| line.contains(" ssh -S ") && line.contains(" none ");
    let text = output("ps -eo pid,args");
    text.lines()
        .filter(is_client)
        .map(|line| Pid::from_raw(line.split_whitespace().next().unwrap().parse().unwrap()))
        .collect()
}

#[test]
fn a_call_brings_the_document_the_code_and_the_events() {
    let name = "hosts::remote::a_call_brings_the_document_the_code_and_the_events";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(2);
        let (one, two) = (connect(1), connect(2));
        wait_for(async {
            one.check_version().await.unwrap();
            let answer = one.call(&["list"], &[], |_| {}).await.unwrap();
            assert_eq!((answer.code, answer.failed), (0, false));
            assert_eq!(answer.document["labs"], serde_json::json!([]));
            // A failure comes whole, with the code that it has there.
            std::fs::write(hosts.path(1, "/run/bad.toml"), "lab = 7\n").unwrap();
            let answer = one.call(&["check", "/run/bad.toml"], &[], |_| {}).await.unwrap();
            assert_eq!((answer.code, answer.failed), (2, true));
            assert_eq!(answer.document["problems"][0]["line"], 1);
            // Words that a shell would take apart arrive as they are.
            let answer = one.call(&["status", "a b'$(id)\"*.toml"], &[], |_| {}).await.unwrap();
            assert!(answer.failed && answer.document.to_string().contains("a b'$(id)"), "{answer:?}");
            std::fs::write(hosts.path(2, "/run/net.toml"), LAB).unwrap();
            let mut events = Vec::new();
            let answer = two.call(&["create", "/run/net.toml"], &[], |event| events.push(event)).await.unwrap();
            assert_eq!((answer.code, &answer.document["lab"]), (0, &Value::from("far")), "{answer:?}");
            let done: Vec<(u64, u64)> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Progress { done, total, .. } => Some((*done, *total)),
                    _ => None,
                })
                .collect();
            let changes = answer.document["changes"].as_u64().unwrap();
            assert!(done.is_sorted() && done.last() == Some(&(changes, changes)), "{events:?}");
            // What clap refuses is text.
            let error = two.call(&["creat"], &[], |_| {}).await.unwrap_err();
            says(&error, &["host h2", "code 2", "unrecognized subcommand"]);
            two.call(&["destroy", "far"], &[], |_| {}).await.unwrap();
        });
        // Whatever was called went through one connection a host.
        assert_eq!((hosts.connections(1), hosts.connections(2)), (1, 1));
        wait_for(one.close());
        drop(two);
        until("the connections are gone", || (1..3).all(|number| hosts.connections(number) == 0));
        assert_eq!(masters(), 0);
    });
}

#[test]
fn a_host_that_cannot_be_reached_is_told_with_the_remedy() {
    let name = "hosts::remote::a_host_that_cannot_be_reached_is_told_with_the_remedy";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let mut hosts = Hosts::start(1);
        let known = std::fs::read_to_string("/root/.ssh/known_hosts").unwrap();
        says(&no_connection("nobody.invalid"), &["host h1 (nobody.invalid)", "not known", "[host.h1]"]);
        let odd = no_connection("-oProxyCommand=touch /run/owned");
        assert!(matches!(odd.trouble, Trouble::Destination));
        assert!(!Path::new("/run/owned").exists());
        // Another host's key, and one that nobody knows.
        std::fs::remove_file("/root/.ssh/known_hosts").unwrap();
        let unknown = no_connection("h1");
        assert!(matches!(unknown.trouble, Trouble::KeyUnknown { .. }), "{unknown:?}");
        says(&unknown, &["accept it once: ssh h1"]);
        std::fs::write("/root/.ssh/known_hosts", known).unwrap();
        drop(connect(1));
        hosts.change_key(1);
        says(&no_connection("h1"), &["another one", "ssh-keygen -f /root/.ssh/known_hosts -R '10.99.0.1'"]);
        std::fs::remove_file("/root/.ssh/known_hosts").unwrap();
        // It is the user's own word whether new keys are taken.
        let config = std::fs::read_to_string("/root/.ssh/config").unwrap();
        std::fs::write("/root/.ssh/config", format!("StrictHostKeyChecking accept-new\n{config}")).unwrap();
        drop(connect(1));
        std::fs::rename("/root/.ssh/id_ed25519", "/root/.ssh/away").unwrap();
        says(&no_connection("h1"), &["does not accept", "Permission denied", "ssh-copy-id h1"]);
        std::fs::rename("/root/.ssh/away", "/root/.ssh/id_ed25519").unwrap();
        hosts.stop_sshd(1);
        says(&no_connection("h1"), &["refuses", "Connection refused", "whether sshd runs there"]);
        hosts.start_sshd(1);
        let slow = hosts.delay(1, Duration::from_secs(3));
        drop(connect(1));
        slow.join().unwrap();
        hosts.cut(1);
        let begun = Instant::now();
        let silent = no_connection("h1");
        assert!(matches!(silent.trouble, Trouble::NoAnswer { .. } | Trouble::TooSlow { .. }), "{silent:?}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(masters(), 0);
    });
}

#[test]
fn a_host_without_this_vmnet_gets_it() {
    let name = "hosts::remote::a_host_without_this_vmnet_gets_it";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(1);
        let place = connect(1);
        let program = Path::new(env!("CARGO_BIN_EXE_vmnet"));
        let installed = hosts.path(1, "/usr/local/bin/vmnet");
        wait_for(async {
            hosts.replace_vmnet(1, None);
            let missing = place.check_version().await.unwrap_err();
            assert!(missing.wants_install());
            says(&missing, &["host h1 (h1)", "no vmnet", "not found", "--install"]);
            assert!(place.call(&["list"], &[], |_| {}).await.unwrap_err().wants_install());
            // What does not run there does not take its place.
            let error = place.install(Path::new("/usr/bin/true")).await.unwrap_err();
            assert!(matches!(error.trouble, Trouble::Garbage { .. }), "{error:?}");
            assert_eq!(hosts.sh(1, "ls -A /usr/local/bin"), "");
            place.install(program).await.unwrap();
            assert_eq!(hosts.sh(1, "ls -A /usr/local/bin; stat -c %a:%U /usr/local/bin/vmnet"), "vmnet\n755:root\n");
            assert_eq!(std::fs::metadata(&installed).unwrap().len(), std::fs::metadata(program).unwrap().len());
            place.check_version().await.unwrap();
            hosts.replace_vmnet(1, Some("#!/bin/sh\necho vmnet 99.1.0\n"));
            let other = place.check_version().await.unwrap_err();
            assert!(other.wants_install());
            says(&other, &["vmnet 99.1.0", concat!("vmnet ", env!("CARGO_PKG_VERSION")), "--install"]);
            hosts.replace_vmnet(1, Some("#!/bin/nothing\n"));
            assert!(place.check_version().await.unwrap_err().wants_install());
            hosts.replace_vmnet(1, Some("#!/bin/sh\necho Welcome to h1\n"));
            says(&place.check_version().await.unwrap_err(), &["Welcome to h1", "~/.bashrc"]);
            says(&place.call(&["list"], &[], |_| {}).await.unwrap_err(), &["Welcome to h1"]);
            hosts.replace_vmnet(1, Some("#!/bin/sh\nkill -9 $$\n"));
            let killed = place.call(&["list"], &[], |_| {}).await.unwrap_err();
            assert!(matches!(killed.trouble, Trouble::Killed { .. }), "{killed:?}");
            place.install(program).await.unwrap();
            // Another one comes first on the PATH.
            hosts.sh(1, "printf '#!/bin/sh\\necho vmnet 0.0.1\\n' > /run/first/vmnet; chmod 755 /run/first/vmnet");
            let shadowed = place.install(program).await.unwrap_err();
            says(&shadowed, &["another one stands before", "vmnet 0.0.1", "which -a vmnet"]);
        });
    });
}

#[test]
fn a_link_that_dies_in_the_middle_is_an_error_soon() {
    let name = "hosts::remote::a_link_that_dies_in_the_middle_is_an_error_soon";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(2);
        let script = "#!/bin/sh\necho '{\"event\":\"note\",\"text\":\"begun\"}'\nsleep 60\n";
        hosts.replace_vmnet(1, Some(script));
        let (one, two) = (connect(1), connect(2));
        let mut begun = None;
        wait_for(async {
            let call = one.call(&["create"], &[], |_| {
                hosts.cut(1);
                begun = Some(Instant::now());
            });
            let other = two.call(&["list"], &[], |_| {});
            let (cut, whole) = tokio::join!(call, other);
            let cut = cut.unwrap_err();
            assert!(matches!(cut.trouble, Trouble::Cut { .. }), "{cut:?}");
            says(&cut, &["host h1", "broke off", "ssh h1 vmnet list"]);
            whole.unwrap();
        });
        let took = begun.unwrap().elapsed();
        assert!(took < SOON, "{took:?}");
        // A connection that ended while nobody used it is made anew; a key press in the terminal is not for ssh.
        hosts.restore(1);
        until("ssh has given up", || masters() == 1);
        hosts.replace_vmnet(1, Some("#!/bin/sh\nsleep 2\necho '{\"event\":\"result\",\"value\":7}'\n"));
        let interrupt = std::thread::spawn(|| {
            until("a command runs", || !clients().is_empty());
            // It has to become ssh's own, which handles signals, first.
            std::thread::sleep(Duration::from_millis(300));
            for client in clients() {
                for signal in [Signal::SIGINT, Signal::SIGHUP] {
                    kill(client, signal).unwrap();
                }
            }
        });
        assert_eq!(wait_for(one.call(&["list"], &[], |_| {})).unwrap().document, 7);
        interrupt.join().unwrap();
        hosts.replace_vmnet(1, Some(script));
        // What runs on too long is given up, too, although the link is there.
        let again = connect(1);
        let limit = Duration::from_millis(500);
        let slow = wait_for(again.call_within(limit, &["create"], &[], |_| {})).unwrap_err();
        assert!(matches!(slow.trouble, Trouble::TooSlow { .. }), "{slow:?}");
        // A link that is slow is no dead one.
        let delayed = hosts.delay(2, Duration::from_secs(4));
        wait_for(two.call(&["list"], &[], |_| {})).unwrap();
        delayed.join().unwrap();
        drop((one, two, again));
        assert_eq!(masters(), 0);
    });
}

#[test]
fn a_terminal_reaches_through() {
    let name = "hosts::remote::a_terminal_reaches_through";
    if !can(name) {
        return;
    }
    if !there_is("script") {
        return skip_this("needs script (util-linux)");
    }
    // The test starts itself again on a terminal, and is the one that talks to the host then.
    if std::env::var_os("VMNET_ON_TERMINAL").is_some() {
        let place = connect(1);
        let code = wait_for(place.interactive(&["console", "it's vm1"])).unwrap();
        println!("ended with {code}");
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(1);
        let script = "#!/bin/sh\ntty -s && echo \"$* on a terminal\"\nread -r word\necho \"heard $word\"\nexit 7\n";
        hosts.replace_vmnet(1, Some(script));
        let own = std::env::current_exe().unwrap();
        let again = format!("{} --exact {name} --nocapture", own.display());
        let mut child = Command::new("script");
        child.args(["-qec", &again, "/dev/null"]).env("VMNET_ON_TERMINAL", "1");
        child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut text = String::new();
        let mut buffer = [0; 1000];
        loop {
            let length = output.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            let asked = text.contains("on a terminal");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if !asked && text.contains("on a terminal") {
                input.write_all(b"hello\n").unwrap();
            }
        }
        child.wait().unwrap();
        for word in ["console it's vm1 on a terminal", "heard hello", "ended with 7"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        // Without a terminal it is the same, for scripts.
        let place = connect(1);
        hosts.replace_vmnet(1, Some("#!/bin/sh\ntty -s && exit 1\nexit 9\n"));
        assert_eq!(wait_for(place.interactive(&["console", "vm1"])).unwrap(), 9);
    });
}

#[test]
fn a_rehearsed_host_is_a_place_like_any() {
    let name = "hosts::remote::a_rehearsed_host_is_a_place_like_any";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Arc::new(Hosts::start(1));
        let of = hosts.clone();
        let place = Place::rehearsed("h1", Arc::new(move |args| of.on(1, "vmnet", args)));
        wait_for(async {
            place.check_version().await.unwrap();
            let answer = place.call(&["list"], &[], |_| {}).await.unwrap();
            assert_eq!((answer.code, answer.failed), (0, false));
            let answer = place.call(&["status", "nowhere"], &[], |_| {}).await.unwrap();
            assert_eq!((answer.code, answer.failed), (1, true));
            assert_eq!(place.interactive(&["list"]).await.unwrap(), 0);
            place.install(Path::new("/nonexistent")).await.unwrap();
        });
        assert_eq!(masters(), 0);
    });
}
