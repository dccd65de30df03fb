//! Flags of Kthena's processes, for those who bring their command lines along.
//!
//! Only those that mean the same here; each is worth a line in the log. The environment variables of Kthena's router
//! belong to the gateway.

use std::ffi::OsString;
use std::path::Path;

/// Something to be said once logging runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// As it was given.
    pub given: String,
    /// What was taken instead; `None`: nothing, it has no meaning here.
    pub taken: Option<String>,
}

/// What becomes of a flag's value.
enum Meaning {
    /// The same under another name.
    Renamed(&'static str),
    /// A port on every address.
    Port(&'static str),
    /// A port on loopback; 0: Kthena's word for off.
    LoopbackPort(&'static str),
    /// A file, of whose folder ours is told.
    FolderOf(&'static str),
    /// Nothing here depends on it.
    Nothing,
}

use Meaning::{FolderOf, LoopbackPort, Nothing, Port, Renamed};

const FLAGS: [(&str, Meaning); 15] = [
    ("enable-webhook", Renamed("webhook")),
    ("webhook-port", Port("webhook-address")),
    ("metrics-port", Port("operations-address")),
    ("debug-port", LoopbackPort("debug-address")),
    ("cert-secret-name", Renamed("certificate-secret")),
    ("webhook-tls-cert-file", FolderOf("webhook-certificates")),
    // Beside the other one, which has told the folder.
    ("webhook-tls-private-key-file", Nothing),
    ("enable-gateway-api", Nothing),
    ("enable-gateway-api-inference-extension", Nothing),
    ("expose-metrics-on-router-port", Nothing),
    ("workers", Nothing),
    ("controllers", Nothing),
    ("autoscaling-sync-period-seconds", Nothing),
    ("master", Nothing),
    ("v", Nothing),
];

/// Flags that Go lets stand without a value.
const SWITCHES: [&str; 4] = [
    "enable-webhook",
    "enable-gateway-api",
    "enable-gateway-api-inference-extension",
    "expose-metrics-on-router-port",
];

/// The command line with ours in place of Kthena's flags.
pub fn translate(arguments: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<Note>) {
    let mut ours = Vec::new();
    let mut notes = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        let Some((name, meaning)) = known(text) else {
            ours.push(argument);
            continue;
        };
        let value = match text.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None if SWITCHES.contains(&name) => "true".to_owned(),
            None => {
                let value = arguments.next_if(|next| !next.as_encoded_bytes().starts_with(b"-"));
                value.unwrap_or_default().to_string_lossy().into_owned()
            }
        };
        let taken = take(meaning, &value);
        notes.push(Note {
            given: format!("--{name}={value}"),
            taken: taken.clone(),
        });
        ours.extend(taken.map(OsString::from));
    }
    (ours, notes)
}

/// `--name`, `-name` (as Go allows), with or without `=value`.
fn known(argument: &str) -> Option<(&'static str, &'static Meaning)> {
    let name = argument.strip_prefix("--").or(argument.strip_prefix('-'))?;
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    FLAGS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(name, meaning)| (*name, meaning))
}

fn take(meaning: &Meaning, value: &str) -> Option<String> {
    match meaning {
        Renamed(ours) => Some(format!("--{ours}={value}")),
        Port(ours) => Some(format!("--{ours}=0.0.0.0:{value}")),
        LoopbackPort(_) if value == "0" => None,
        LoopbackPort(ours) => Some(format!("--{ours}=127.0.0.1:{value}")),
        FolderOf(ours) => {
            let folder = Path::new(value).parent()?;
            Some(format!("--{ours}={}", folder.display()))
        }
        Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(arguments: &[&str]) -> (Vec<String>, Vec<Note>) {
        let (ours, notes) = translate(arguments.iter().map(OsString::from));
        let text = |argument: OsString| argument.into_string().unwrap();
        (ours.into_iter().map(text).collect(), notes)
    }

    #[test]
    fn kthenas_flags_become_ours_and_each_is_noted() {
        let (ours, notes) = translated(&[
            "sluice-control",
            "--leader-elect=true",
            "--enable-webhook",
            "--webhook-port",
            "9443",
            "--debug-port=0",
            "-v=2",
            "--webhook-tls-cert-file=/etc/tls/tls.crt",
            "--workers",
            "5",
        ]);
        let want = [
            "sluice-control",
            "--leader-elect=true",
            "--webhook=true",
            "--webhook-address=0.0.0.0:9443",
            "--webhook-certificates=/etc/tls",
        ];
        assert_eq!(ours, want);
        assert_eq!(notes.len(), 6);
        assert_eq!(notes[1].given, "--webhook-port=9443");
        assert_eq!(notes[2].taken, None);
    }

    #[test]
    fn ours_are_left_as_they_are() {
        let arguments = ["sluice-control", "check", "-f", "manifests", "--version"];
        assert_eq!(
            translated(&arguments),
            (arguments.map(str::to_owned).to_vec(), vec![])
        );
    }
}
