//! Commas and equals signs on their way into QEMU's options: QEMU itself says what it understood.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::matrix::promise::keep;
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

/// A folder and a file that are options to whoever splits at commas.
const ODD: &str = "a,b=c,,readonly=off,id=x; $(id) 'q' \"%s\" {tap:0}";

const CMDLINE: &str = "console=ttyS0 quiet root=a,b=c,,d {file:0} '$(id)' \\\"%s\\\" id=<x>";

fn definition(folder: &str) -> String {
    format!(
        "lab = \"odd\"\n[network.web]\nmode = \"isolated\"\n[image.i]\nfile = '{folder}/disk,x=y.qcow2'\n\
         kernel = '{folder}/vmlinuz,append=x'\ninitrd = '{folder}/initrd,x=y'\ncmdline = \"{CMDLINE}\"\n\
         [vm.q]\naccel = \"tcg\"\nmemory = \"160MiB\"\nimage = \"i\"\nnic = \"web\"\n"
    )
}

/// Asks QEMU by its monitor protocol, several questions on one connection.
fn ask(socket: &str, questions: &[Value]) -> Vec<Value> {
    let connect = || UnixStream::connect(socket).ok();
    let wait = || std::thread::sleep(Duration::from_millis(50));
    let stream = (0..200)
        .find_map(|_| {
            connect().or_else(|| {
                wait();
                None
            })
        })
        .expect("QEMU's socket");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut answer = || -> Value {
        let mut objects = lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        objects
            .find(|object| object["QMP"].is_object() || !object["return"].is_null() || object["error"].is_object())
            .unwrap()
    };
    answer();
    let all = [json!({ "execute": "qmp_capabilities" })].into_iter().chain(questions.iter().cloned());
    let answers = all.map(|question| {
        (&stream).write_all(format!("{question}\n").as_bytes()).unwrap();
        answer()
    });
    answers.skip(1).collect()
}

/// What QEMU understood: the files of its disks, and the kernel's command line.
fn understood(socket: &str) -> (Vec<String>, String) {
    let append = json!({ "execute": "qom-get", "arguments": { "path": "/machine", "property": "append" } });
    let answers = ask(socket, &[json!({ "execute": "query-named-block-nodes" }), append]);
    let nodes = answers[0]["return"].as_array().unwrap();
    let files = nodes.iter().filter(|node| node["drv"] == "file").filter_map(|node| node["file"].as_str());
    let mut files: Vec<String> = files.map(str::to_owned).collect();
    files.sort();
    (files, answers[1]["return"].as_str().unwrap_or_default().to_owned())
}

/// A guest whose image, kernel and state folder have names full of options: vmnet's own QEMU opens exactly those.
#[test]
fn row_46_files_of_a_booted_guest() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = odd_lab();
        let state = format!("/run/{ODD}/state");
        let run = |args: &[&str]| {
            let mut command = lab.command(args);
            command.env("VMNET_STATE_DIR", &state);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["create"]);
        run(&["boot", "q"]);
        let (files, append) = understood("/run/vmnet/odd/guests/q/qmp.sock");
        let folder = format!("{state}/odd/guests/q");
        assert!(files.contains(&format!("{folder}/disk-1.qcow2")), "{files:?}");
        assert!(files.contains(&format!("{folder}/seed.img")), "{files:?}");
        assert_eq!(append, CMDLINE.replace("\\\"", "\""));
        let pid = sh("cd /proc; grep -lz '^guest=odd-q$' [0-9]*/cmdline | cut -d / -f 1");
        assert_eq!(pid.lines().count(), 1, "{pid}");
        sh(&format!("kill -KILL {0}; while kill -0 {0} 2>/dev/null; do sleep 0.05; done", pid.trim()));
        run(&["destroy", "--stop", "--purge"]);
        std::fs::remove_dir_all(lab.folder().join(odd())).unwrap();
        std::fs::remove_dir_all(format!("/run/{ODD}")).unwrap();
        let plain = Lab::from_text("lab = \"odd\"\n[network.web]\nmode = \"isolated\"\n");
        keep(&plain, &before);
    });
}

/// The same in the definition, where it stands between single quotes.
fn odd() -> String {
    ODD.replace('\'', "’")
}

/// The image's files under odd names, and a definition that names them.
fn odd_lab() -> Lab {
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    let lab = Lab::from_text(&definition(&odd()));
    let folder = lab.folder().join(odd());
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in [("disk.qcow2", "disk,x=y.qcow2"), ("vmlinuz", "vmlinuz,append=x"), ("initrd.img", "initrd,x=y")]
    {
        std::os::unix::fs::symlink(tiny.join(from), folder.join(to)).unwrap();
    }
    lab
}

/// QEMU with the command line that vmnet prints for it, which stands still before its first instruction.
fn by_hand(line: &Value, socket: &str) -> Child {
    let args = line["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let mut command = Command::new(line["program"].as_str().unwrap());
    command.args(args).args(["-S", "-qmp", &format!("unix:{socket},server=on,wait=off")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create("/run/qemu-said").unwrap());
    command.spawn().unwrap()
}

/// The command line for people: the same, as arguments and through a shell.
#[test]
fn row_46_files_of_a_command_line() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = odd_lab();
        let state = format!("/run/{ODD}/state");
        let run = |args: &[&str]| {
            let output = lab.command(args).env("VMNET_STATE_DIR", &state).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["create"]);
        let line: Value = serde_json::from_str(&run(&["qemu-args", "q", "--json"])).unwrap();
        // A shell reads the printed line as the same words.
        let printed = run(&["qemu-args", "q"]).replace("\\\n", "");
        let command = printed.lines().find(|line| !line.starts_with('#')).unwrap();
        let words =
            sh(&format!("set -f; words() {{ for word; do printf '%s\\036' \"$word\"; done; }}; words {command}"));
        let words: Vec<&str> = words.split_terminator('\u{1e}').collect();
        let mut expected = vec![line["program"].as_str().unwrap()];
        expected.extend(line["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()));
        assert_eq!(words, expected);
        let mut qemu = by_hand(&line, "/run/q.sock");
        let (files, append) = understood("/run/q.sock");
        qemu.kill().unwrap();
        qemu.wait().unwrap();
        let folder = format!("{state}/odd/by-hand/q.0");
        assert!(files.contains(&format!("{folder}/disk-1.qcow2")), "{files:?}");
        assert!(files.contains(&format!("{folder}/seed.img")), "{files:?}");
        assert_eq!(append, CMDLINE.replace("\\\"", "\""));
        run(&["destroy", "--purge"]);
        std::fs::remove_dir_all(lab.folder().join(odd())).unwrap();
        std::fs::remove_dir_all(format!("/run/{ODD}")).unwrap();
        let plain = Lab::from_text("lab = \"odd\"\n[network.web]\nmode = \"isolated\"\n");
        keep(&plain, &before);
    });
}
