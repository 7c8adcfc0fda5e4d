//! Putting this program on a host, by the plain commands that every system has.

use std::fs::File;
use std::path::Path;

use super::error::{RemoteError, Trouble};
use super::files::digest;
use super::started::Input;
use super::{INSTALLED, LIMIT, Place, SHORT, Way, is_own_version};

impl Place {
    /// Copies `program` to the host as [`INSTALLED`]: beside it first, where it is compared and has to run; the old one
    /// or the new one is there at any moment. A rehearsed host has this one already.
    ///
    /// # Errors
    /// When a step fails: the old one is still there then, and nothing else stays. [`Trouble::Shadowed`] when another
    /// one comes first on the host's `PATH`.
    pub async fn install(&self, program: &Path) -> Result<(), RemoteError> {
        match self.way {
            Way::Rehearsed(_) => Ok(()),
            Way::Ssh(_) => self.install_by_ssh(program).await.map_err(|trouble| self.error(trouble)),
        }
    }

    async fn install_by_ssh(&self, program: &Path) -> Result<(), Trouble> {
        let (own, _) = digest(program).await?;
        let path = || program.to_owned();
        let file = File::open(program).map_err(|source| Trouble::File { path: path(), source })?;
        let (folder, name) = INSTALLED.rsplit_once('/').unwrap_or(("", INSTALLED));
        self.plain("mkdir", &["-p", folder]).await?;
        let beside = self.plain("mktemp", &[&format!("{folder}/.{name}.XXXXXXXX")]).await?;
        let placed = async {
            self.run("dd", &[&format!("of={beside}"), "bs=1M"], Input::File(file), LIMIT).await?;
            let found = self.run("sha256sum", &[&beside], Input::Nothing, LIMIT).await?;
            if found.split(' ').next() != Some(own.as_str()) {
                let said = "what arrived there is not what was sent".to_owned();
                return Err(Trouble::Install { what: "sha256sum".into(), said });
            }
            self.plain("chmod", &["755", &beside]).await?;
            is_own_version(&self.plain(&beside, &["--version"]).await?)?;
            self.plain("mv", &["-f", &beside, INSTALLED]).await
        };
        if let Err(trouble) = placed.await {
            // If this fails too, a file with a dot stays that nobody runs.
            let _ = self.plain("rm", &["-f", &beside]).await;
            return Err(trouble);
        }
        let found = self.run("vmnet", &["--version"], Input::Nothing, SHORT).await?;
        is_own_version(&found).map_err(|_| Trouble::Shadowed { found: found.escape_debug().to_string() })
    }

    async fn plain(&self, program: &str, args: &[&str]) -> Result<String, Trouble> {
        self.run(program, args, Input::Nothing, SHORT).await
    }
}
