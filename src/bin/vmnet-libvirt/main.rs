//! `vmnet-libvirt`: the one program that links libvirt. It answers `vmnet`'s questions, one JSON document a line, until
//! standard input ends ([`vmnet::libvirt`]). It decides nothing but this: what is not the lab's is not ended or removed.

mod domains;
mod networks;
mod refusal;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use virt::connect::Connect;
use vmnet::libvirt::{Answer, Ask, Refusal, RefusalKind, VERSION};

use refusal::{from, own};

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        let mut stderr = io::stderr();
        let said = match argument.as_str() {
            "--version" => writeln!(io::stdout(), "vmnet-libvirt {}", env!("CARGO_PKG_VERSION")),
            _ => writeln!(stderr, "vmnet-libvirt is started by vmnet and takes questions on standard input"),
        };
        return ExitCode::from(if argument == "--version" && said.is_ok() { 0 } else { 2 });
    }
    // Its default prints every error; they are answers here.
    virt::error::clear_error_callback();
    match serve(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Who asked is gone.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers each question, in order.
fn serve(questions: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let mut connection = None;
    for line in questions.lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(ask) => answer(&mut connection, ask).unwrap_or_else(|refusal| Answer::Refused { refusal }),
            Err(error) => Answer::Refused { refusal: own(RefusalKind::Other, format!("no question: {error}")) },
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        answers.write_all(&text)?;
        answers.flush()?;
    }
    if let Some(mut connection) = connection.take() {
        // Nothing hangs on it any more.
        let _: Result<_, _> = Connect::close(&mut connection);
    }
    Ok(())
}

fn answer(connection: &mut Option<Connect>, ask: Ask) -> Result<Answer, Refusal> {
    let connect = match ask {
        Ask::Open { version, uri } => {
            if version != VERSION {
                let message = format!("this vmnet-libvirt speaks version {VERSION}, vmnet asks in version {version}");
                return Err(own(RefusalKind::Other, message));
            }
            let open = Connect::open(Some(&text(uri)?)).map_err(from)?;
            let libvirt = open.get_lib_version().map_err(from)?;
            *connection = Some(open);
            return Ok(Answer::Open { libvirt });
        }
        _ => connection.as_ref().ok_or_else(|| own(RefusalKind::Other, "not connected".to_owned()))?,
    };
    match ask {
        // Answered above.
        Ask::Open { .. } => Ok(Answer::Done),
        Ask::Domains => Ok(Answer::Domains { domains: domains::all(connect).map_err(from)? }),
        Ask::State { uuid } => domains::state_of(connect, &uuid),
        Ask::Define { xml, autostart } => domains::define(connect, &text(xml)?, autostart),
        Ask::Start { uuid, mark } => domains::of(connect, &uuid, &mark)?.create().map(done).map_err(from),
        Ask::Shutdown { uuid, mark } => domains::of(connect, &uuid, &mark)?.shutdown().map(done).map_err(from),
        Ask::Destroy { uuid, mark } => domains::destroy(connect, &uuid, &mark),
        Ask::Undefine { uuid, mark } => domains::undefine(connect, &uuid, &mark),
        Ask::Attach { uuid, xml, scope } => domains::attach(connect, &uuid, &text(xml)?, scope),
        Ask::Detach { uuid, xml, scope } => domains::detach(connect, &uuid, &text(xml)?, scope),
        Ask::Networks => Ok(Answer::Networks { networks: networks::all(connect).map_err(from)? }),
        Ask::DefineNetwork { xml, active, autostart } => networks::define(connect, &text(xml)?, active, autostart),
        Ask::RemoveNetwork { uuid, lab } => networks::remove(connect, &uuid, &lab),
    }
}

fn done<T>(_: T) -> Answer {
    Answer::Done
}

/// libvirt's strings end at a NUL.
fn text(text: String) -> Result<String, Refusal> {
    match text.contains('\0') {
        true => Err(own(RefusalKind::Xml, "a NUL character can't be said to libvirt".to_owned())),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests;
