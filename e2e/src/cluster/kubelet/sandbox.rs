//! What a container sees: the machine's files, copied on write, with the pod's volumes in their places.
//!
//! A mount namespace of its own and an overlay over `/`, made by a small script in front of the program, so that the
//! process that we start is the one that runs. Not a security boundary, and no namespace for processes: the pods of a
//! test run share one, and most of them share the network too, each with an address of its own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

/// A file or folder of this machine and where the container sees it.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) source: PathBuf,
    pub(super) target: String,
    pub(super) read_only: bool,
}

/// One container's view.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    /// An empty folder for this container alone.
    pub(super) folder: PathBuf,
    /// A network other than that of the test run.
    pub(super) network: Option<PathBuf>,
    pub(super) mounts: Vec<Mount>,
    /// Links from a path in the container to another.
    pub(super) links: Vec<(String, String)>,
    pub(super) read_only_root: bool,
    pub(super) working_folder: String,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
}

impl Sandbox {
    /// A command that runs `arguments` inside, with these variables alone.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub(super) fn command(
        &self,
        arguments: &[String],
        variables: &BTreeMap<String, String>,
    ) -> std::io::Result<Command> {
        std::fs::create_dir_all(self.folder.join("box"))?;
        std::fs::write(self.entered(), "")?;
        let script = self.folder.join("enter.sh");
        std::fs::write(&script, self.script())?;
        let mut command = match &self.network {
            Some(network) => {
                let mut command = Command::new("/usr/bin/nsenter");
                command.arg(format!("--net={}", network.display()));
                command.arg("/usr/bin/unshare");
                command
            }
            None => Command::new("/usr/bin/unshare"),
        };
        command.args(["--mount", "/bin/sh"]).arg(script);
        command.args(arguments);
        command.env_clear().envs(variables);
        Ok(command)
    }

    /// A file that is no longer empty once the program itself begins.
    fn entered(&self) -> PathBuf {
        self.folder.join("entered")
    }

    /// Waits until the program itself begins: signals are its own from then on. Never ends if it does not.
    pub(super) async fn begun(&self) {
        let entered = self.entered();
        while std::fs::metadata(&entered).is_ok_and(|file| file.len() == 0) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn script(&self) -> String {
        let folder = quoted(&self.folder.join("box").display().to_string());
        let entered = quoted(&self.entered().display().to_string());
        // The machine's own /proc, /sys and /dev; everything else written goes to memory and is gone at the end.
        let mut text = format!(
            "set -e\nbox={folder}\nexec 3>{entered}\n\
             mount -t tmpfs -o mode=755 sluice \"$box\"\n\
             mkdir \"$box/upper\" \"$box/work\" \"$box/root\"\n\
             mount -t overlay -o lowerdir=/,upperdir=\"$box/upper\",workdir=\"$box/work\" sluice \"$box/root\"\n\
             for name in proc sys dev; do mount --rbind \"/$name\" \"$box/root/$name\"; done\n\
             # Links such as /var/run are followed inside, not outside.\n\
             inside() {{ printf '%s' \"$box/root$(chroot \"$box/root\" readlink -m \"$1\")\"; }}\n\
             place() {{\n\
             target=$(inside \"$2\")\n\
             if [ -d \"$1\" ]; then mkdir -p \"$target\"; else mkdir -p \"${{target%/*}}\"; [ -e \"$target\" ] || : >\"$target\"; fi\n\
             mount --bind \"$1\" \"$target\"\n\
             if [ \"$3\" = ro ]; then mount -o remount,bind,ro \"$target\"; fi\n\
             }}\n"
        );
        for mount in &self.mounts {
            let source = quoted(&mount.source.display().to_string());
            let target = quoted(&mount.target);
            let mode = if mount.read_only { "ro" } else { "rw" };
            writeln!(text, "place {source} {target} {mode}").expect("a string takes everything");
        }
        for (from, to) in &self.links {
            let (from, to) = (quoted(from), quoted(to));
            writeln!(text, "ln -sfn {to} \"$(inside {from})\"").expect("a string takes everything");
        }
        if self.read_only_root {
            text.push_str("mount -o remount,ro \"$box/root\"\n");
        }
        let folder = quoted(&self.working_folder);
        let user = self.as_user();
        writeln!(
            text,
            "exec chroot \"$box/root\" /bin/sh -c 'cd \"$0\" && echo >&3 && exec \"$@\" 3>&-' {folder} {user}\"$@\""
        )
        .expect("a string takes everything");
        text
    }

    fn as_user(&self) -> String {
        let Some(user) = self.user.filter(|user| *user != 0) else {
            return String::new();
        };
        let group = self.group.unwrap_or(user);
        format!("setpriv --reuid={user} --regid={group} --clear-groups --no-new-privs ")
    }
}

/// A command that runs in the view of a running container.
pub(super) fn enter(
    process: i32,
    arguments: &[String],
    variables: &BTreeMap<String, String>,
) -> Command {
    let namespace = Path::new("/proc").join(process.to_string());
    let mut command = Command::new("/usr/bin/nsenter");
    command
        .arg(format!("--mount={}", namespace.join("ns/mnt").display()))
        .arg(format!("--net={}", namespace.join("ns/net").display()))
        .arg(format!("--root={}", namespace.join("root").display()))
        .arg("--")
        .args(arguments)
        .env_clear()
        .envs(variables);
    command
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
