//! Flags of `sluice-proxy` about the control loop; they go before the bootstrap file.

use std::path::PathBuf;

use clap::Args;
use sluice_config::bootstrap::{ControlAddress, PushConfig, SourceConfig};

/// See the module.
#[derive(Debug, Default, Args)]
pub struct PushFlags {
    /// Control loop to follow, `https://host:port`; may be given several times. Replaces the file's addresses.
    #[arg(long, value_name = "URL", value_parser = address)]
    control: Vec<String>,
    /// PEM file of the authorities that sign the control loop's certificates.
    #[arg(long, value_name = "FILE")]
    control_ca: Option<PathBuf>,
    /// Service-account token to show to the control loop; read anew for every connection.
    #[arg(long, value_name = "FILE")]
    control_token: Option<PathBuf>,
    /// Keeps the last good pushed state, so that a restart serves while the control loop is away.
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
}

impl PushFlags {
    /// Puts what is given in place of what the file says.
    ///
    /// # Errors
    /// When TLS is asked for and no authority is named.
    pub fn apply(self, source: &mut SourceConfig) -> anyhow::Result<()> {
        let files = [&self.control_ca, &self.control_token, &self.state_file];
        let given = !self.control.is_empty() || files.iter().any(|file| file.is_some());
        if !given && source.push.is_none() {
            return Ok(());
        }
        let push = source.push.get_or_insert_with(PushConfig::default);
        if !self.control.is_empty() {
            push.addresses = self.control;
        }
        push.ca_file = self.control_ca.or(push.ca_file.take());
        push.token_file = self.control_token.or(push.token_file.take());
        push.state_file = self.state_file.or(push.state_file.take());
        let tls = |url: &String| url.starts_with("https://");
        anyhow::ensure!(
            push.ca_file.is_some() || !push.addresses.iter().any(tls),
            "nothing tells whose certificates are right: give --control-ca, or source.push.caFile in the bootstrap file"
        );
        Ok(())
    }
}

fn address(url: &str) -> Result<String, String> {
    ControlAddress::parse(url)
        .map(|_| url.to_owned())
        .map_err(|reason| format!("it {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_file_and_leave_the_rest_of_it() {
        let mut source = SourceConfig::default();
        PushFlags::default().apply(&mut source).unwrap();
        assert_eq!(source.push, None);
        source.push = Some(PushConfig {
            addresses: vec!["https://old:1".into()],
            ca_file: Some("ca".into()),
            token_file: Some("token".into()),
            ..PushConfig::default()
        });
        let flags = PushFlags {
            control: vec!["https://new:1".into()],
            control_token: Some("other".into()),
            ..PushFlags::default()
        };
        flags.apply(&mut source).unwrap();
        let push = source.push.unwrap();
        assert_eq!(push.addresses, ["https://new:1"]);
        assert_eq!(
            (push.ca_file, push.token_file),
            (Some("ca".into()), Some("other".into()))
        );
    }

    #[test]
    fn tls_needs_an_authority_and_an_address_is_a_url() {
        let flags = PushFlags {
            control: vec!["https://new:1".into()],
            ..PushFlags::default()
        };
        assert!(flags.apply(&mut SourceConfig::default()).is_err());
        assert!(address("new:1").is_err());
    }
}
