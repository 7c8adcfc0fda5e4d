//! Seeds as cloud-init itself reads them: what its schema says of them, into which parts it splits `user-data`, what
//! configuration it makes of those, and what network of ours. It is unpacked, never installed (`tests/cloud-init`).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use vmnet::definition::Definition;
use vmnet::model::{Lock, resolve};
use vmnet::render::seed::raw::RawUserData;
use vmnet::render::{Files, Given, GuestView, seed};

use crate::skip;

const LAB: &str = r#"
lab = "seeds"
[network.web]
subnet = ["192.168.10.0/24", "fd00:10::/64"]
dns    = "9.9.9.9"
search = ["lab.example"]
mtu    = 1400
[network.quiet]
mode   = "isolated"
subnet = "192.168.20.0/24"
[network.office]
mode   = "bridged"
bridge = "br0"
[image.i]
file = "debian.qcow2"
[vm.vm1]
image = "i"
nic = [
    { network = "web", routes = { to = "10.0.0.0/8", via = "192.168.10.254" } },
    { network = "quiet", dns = "192.168.20.53", search = [], routes = { to = "172.16.0.0/12", via = "192.168.20.9" } },
    { network = "office", address = "dhcp", gateway = false, dns = "192.168.1.1" },
    "office",
    { network = "quiet", address = [] },
]
password_hash = '$6$saltsalt$HASH'
users = [
    { name = "anna", ssh_keys = "ssh-ed25519 AAAA anna", sudo = true, groups = ["adm", "docker"], shell = "/bin/sh" },
    { name = "nobody-else" },
    { name = "root", password_hash = '$6$saltsalt$HASH' },
]
packages = ["nginx", "g++", "libc6:amd64"]
"#;

/// What cloud-init makes of one seed.
#[derive(Debug, Deserialize)]
struct Read {
    parts: Vec<Part>,
    config: Value,
    problems: Vec<String>,
    /// Files by their paths, by renderer.
    network: Value,
    meta: Value,
    warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Part {
    kind: String,
    text: String,
}

/// The seed of `vm1`, with a file of user-data.
fn seed_of(run: &[&str], user_data: Option<&str>) -> Value {
    let run: Vec<toml::Value> = run.iter().map(|line| toml::Value::String((*line).to_owned())).collect();
    let text = format!("{LAB}run = {}\n", toml::Value::Array(run)).replace("HASH", &"a".repeat(86));
    let resolved = Definition::parse(&text).and_then(|definition| resolve(&definition, &Lock::default()));
    let model = resolved.unwrap_or_else(|problems| panic!("{}", problems.render("net.toml", &text, false))).model;
    let user_data = user_data.map(|text| RawUserData::parse(text.as_bytes().to_vec()).unwrap());
    let keys_of = [("anna".to_owned(), vec!["ssh-ed25519 AAAA anna".to_owned()])].into();
    let given = Given { keys: vec!["ssh-ed25519 AAAA me".to_owned()], keys_of, user_data };
    let (vm, files) = (&model.vms()["vm1"], Files::beside(Path::new("/lab")));
    let view =
        GuestView { model: &model, vm, files, given: &given, instance: 1, mtus: &[1400, 1500, 1500, 1500, 1500] };
    json!(seed::files(&view).into_iter().collect::<std::collections::BTreeMap<_, _>>())
}

/// What cloud-init says; `None` where it can't be had here, which is said.
fn ask(seeds: &[Value]) -> Option<Vec<Read>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unpacked = Command::new(root.join("tests/cloud-init/unpack")).output();
    let unpacked = match unpacked {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = unpacked {
        skip::skip_this(&format!("needs cloud-init's code, which can't be fetched: {reason}"));
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(root.join("tests/cloud-init/ask.py"));
    command.env("PYTHONPATH", root.join("build/cloud-init/usr/lib/python3/dist-packages"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = serde_json::to_vec(seeds).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn kinds(read: &Read) -> Vec<&str> {
    read.parts.iter().map(|part| part.kind.as_str()).collect()
}

#[track_caller]
fn is_sound(read: &Read) {
    assert_eq!((&read.problems, &read.warnings), (&vec![], &vec![]), "{:#}", read.config);
}

#[test]
fn a_seed_is_what_its_schema_wants() {
    let run = ["systemctl enable --now nginx", "a: b\n- c", "  \u{2028}é🦀 \"'\\ ", "#cloud-config", "{host-key}"];
    let seed = seed_of(&run, None);
    let Some(read) = ask(std::slice::from_ref(&seed)) else { return };
    let read = &read[0];
    is_sound(read);
    // What it reads is what was written, to the last character.
    let ours = seed["user-data"].as_str().unwrap().strip_prefix("#cloud-config\n").unwrap();
    assert_eq!(read.config, serde_json::from_str::<Value>(ours).unwrap());
    assert_eq!(read.config["runcmd"], json!(run));
    assert_eq!(read.config["users"][0]["lock_passwd"], false);
    assert_eq!((&read.config["users"][2]["lock_passwd"], &read.config["ssh_pwauth"]), (&json!(true), &json!(false)));
    assert_eq!(read.config["disable_root"], false);
    assert_eq!(read.meta, json!({ "instance-id": "seeds-vm1-1", "local-hostname": "vm1" }));
}

/// By each renderer the guest has the addresses, routes and servers that the definition says.
#[test]
fn every_renderer_writes_the_network_that_is_meant() {
    let Some(read) = ask(&[seed_of(&[], None)]) else { return };
    let text = |renderer: &str| {
        let files: std::collections::BTreeMap<String, String> =
            serde_json::from_value(read[0].network[renderer].clone()).unwrap();
        files.iter().map(|(path, text)| format!("--- {path}\n{text}")).collect::<String>()
    };
    let has = |renderer: &str, wanted: &[&str]| {
        let text = text(renderer);
        for wanted in wanted {
            assert!(text.contains(wanted), "{renderer}: {wanted}\n{text}");
        }
    };
    let addresses = ["192.168.10.10/24", "fd00:10::a/64", "192.168.20.10/24"];
    for renderer in ["netplan", "eni", "networkd", "network-manager"] {
        has(renderer, &addresses);
        has(renderer, &["192.168.10.254", "192.168.20.9", "9.9.9.9", "lab.example", "192.168.20.53", "1400"]);
    }
    has(
        "netplan",
        &["to: 10.0.0.0/8", "use-routes: false", "use-dns: false", "dhcp4: true", "accept-ra: true", "set-name: eth4"],
    );
    has("networkd", &["Gateway=192.168.10.1\n", "Destination=172.16.0.0/12", "UseRoutes=False", "UseDNS=False"]);
    has("eni", &["iface eth2 inet dhcp", "post-up route add -net 10.0.0.0/8 gw 192.168.10.254", "mtu 1400"]);
}

/// As docs/definition.md says: the user's own values count, lists are joined, ours first, the host key is ours.
#[test]
fn a_file_of_user_data_is_joined_with_ours() {
    let theirs = "#cloud-config\n# theirs: é 🦀\nhostname: theirs\nssh_pwauth: true\ntimezone: Europe/Berlin\n\
                  packages:\n  - vim\nruncmd:\n  - [their, command]\nusers:\n  - name: otto\n\
                  merge_how:\n  - name: list\n    settings: [replace]\n  - name: dict\n    settings: [replace]\n\
                  ssh_keys:\n  rsa_private: x\n  ed25519_private: theirs\nntp:\n  enabled: true\n";
    let plain = seed_of(&["ours"], None);
    let joined = seed_of(&["ours"], Some(theirs));
    assert_eq!(joined, seed_of(&["ours"], Some(theirs)), "the same bytes every time");
    let Some(read) = ask(&[plain, joined]) else { return };
    let (ours, both) = (&read[0].config, &read[1].config);
    assert_eq!(kinds(&read[1]), ["text/cloud-config"; 3]);
    assert_eq!(read[1].parts[0].text, theirs);
    assert_eq!(
        (&both["hostname"], &both["ssh_pwauth"], &both["timezone"]),
        (&json!("theirs"), &json!(true), &json!("Europe/Berlin"),)
    );
    assert_eq!(both["fqdn"], ours["fqdn"]);
    assert_eq!(both["packages"], json!(["nginx", "g++", "libc6:amd64", "vim"]));
    assert_eq!(both["runcmd"], json!(["ours", ["their", "command"]]));
    let users: Vec<&Value> = both["users"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(users, ["lab", "anna", "nobody-else", "root", "otto"]);
    assert_eq!(both["ssh_keys"], ours["ssh_keys"], "the guest is known by it");
    assert_eq!(read[1].warnings, [] as [String; 0]);
    // `merge_how` is no key of the schema in every release; the rest is.
    assert!(read[1].problems.iter().all(|problem| problem.contains("merge_how")), "{:?}", read[1].problems);
}

#[test]
fn every_kind_of_user_data_arrives_as_it_is() {
    let script = "#!/bin/sh\necho 'é 🦀'\n--vmnet--\n";
    let mime = "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/x-shellscript\n\
                Content-Disposition: attachment; filename=\"x\"\n\n#!/bin/sh\necho x\n\n--b\nContent-Type: text/cloud-config\n\n\
                #cloud-config\ntimezone: UTC\n\n--b--\n";
    let cases = [
        (script, vec!["text/x-shellscript", "text/cloud-config", "text/cloud-config"]),
        ("#cloud-boothook\n#!/bin/sh\n", vec!["text/cloud-boothook", "text/cloud-config", "text/cloud-config"]),
        ("#part-handler\nx = 1\n", vec!["text/part-handler", "text/cloud-config", "text/cloud-config"]),
        (
            "## template: jinja\n#cloud-config\ntimezone: {{ v1.local_hostname }}\n",
            vec!["text/jinja2", "text/cloud-config", "text/cloud-config"],
        ),
        (
            "#cloud-config-archive\n- type: text/cloud-config\n  content: 'timezone: UTC'\n- type: text/x-shellscript\n  \
             content: '#!/bin/sh'\n",
            vec!["text/cloud-config", "text/x-shellscript", "text/cloud-config", "text/cloud-config"],
        ),
        (
            "#cloud-config-jsonp\n[{\"op\": \"replace\", \"path\": \"/fqdn\", \"value\": \"patched\"}]\n",
            vec!["text/cloud-config", "text/cloud-config-jsonp", "text/cloud-config"],
        ),
        (mime, vec!["text/x-shellscript", "text/cloud-config", "text/cloud-config", "text/cloud-config"]),
    ];
    let seeds: Vec<Value> = cases.iter().map(|(text, _)| seed_of(&["ours"], Some(text))).collect();
    let Some(read) = ask(&seeds) else { return };
    for ((text, wanted), read) in cases.iter().zip(&read) {
        assert_eq!(&kinds(read), wanted, "{text}");
        is_sound(read);
        assert_eq!(read.config["hostname"], "vm1", "{text}");
        assert!(read.config["ssh_keys"]["ed25519_private"].is_string(), "{text}");
    }
    assert_eq!(read[0].parts[0].text, script);
    assert_eq!((&read[3].config["timezone"], &read[4].config["timezone"]), (&json!("seen"), &json!("UTC")));
    assert_eq!((&read[5].config["fqdn"], &read[6].config["timezone"]), (&json!("patched"), &json!("UTC")));
    assert!(read[6].parts[0].text.contains("echo x"));
}

/// The test sees what is wrong, or the ones above would say nothing.
#[test]
fn what_the_schema_does_not_want_is_seen() {
    let mut seed = seed_of(&[], None);
    let text = seed["user-data"].as_str().unwrap().replace("\"packages\": [", "\"packages\": [7, ");
    seed["user-data"] = json!(text);
    let Some(read) = ask(&[seed]) else { return };
    assert!(read[0].problems.iter().any(|problem| problem.contains("packages")), "{:?}", read[0].problems);
}
