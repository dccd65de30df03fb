//! Values from elsewhere (an environment), in place of the defaults of what the bootstrap file does not say.

use serde_json::{Map, Value};

use crate::path::{FieldPath, Place};
use crate::shape::Shape;

/// A value for one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The field, such as `drain.timeout`.
    pub path: &'static str,
    /// The value, as it would be written in the file.
    pub value: Value,
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingOutcome {
    /// It is in force.
    Applied,
    /// The file says something itself.
    Overruled,
    /// It is wrong; why.
    Refused(String),
}

/// Puts each setting where `value` says nothing.
pub(super) fn apply(value: &mut Value, settings: &[Setting], shape: &Shape) -> Vec<SettingOutcome> {
    let put = |setting: &Setting| {
        if let Some(reason) = wrong(setting, shape) {
            return SettingOutcome::Refused(reason);
        }
        let (mut at, mut rest) = (&mut *value, setting.path);
        loop {
            // No mapping: the file is wrong there, and refused as a whole.
            let Value::Object(map) = at else {
                return SettingOutcome::Overruled;
            };
            match rest.split_once('.') {
                Some((key, below)) => {
                    at = map.entry(key).or_insert_with(|| Map::new().into());
                    rest = below;
                }
                None if map.contains_key(rest) => return SettingOutcome::Overruled,
                None => {
                    map.insert(rest.to_owned(), setting.value.clone());
                    return SettingOutcome::Applied;
                }
            }
        }
    };
    settings.iter().map(put).collect()
}

/// What is wrong with the value by itself.
fn wrong(setting: &Setting, shape: &Shape) -> Option<String> {
    let mut alone = setting.value.clone();
    for key in setting.path.rsplit('.') {
        alone = Map::from_iter([(key.to_owned(), alone)]).into();
    }
    let (top, mut findings) = (FieldPath::default(), Vec::new());
    shape.check(&mut alone, Place::Path(&top), &mut findings);
    let finding = findings.into_iter().next()?;
    Some(format!("{}; {}", finding.message, finding.remedy))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{AnyFilter, Bootstrap};

    fn setting(path: &'static str, value: Value) -> Setting {
        Setting { path, value }
    }

    #[test]
    fn settings_stand_in_for_defaults_and_the_file_goes_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.yaml");
        std::fs::write(&file, "accessLog: {format: json}\ndrain: {delay: 1s}\n").unwrap();
        let settings = [
            setting("accessLog.enabled", json!(false)),
            setting("accessLog.format", json!("text")),
            setting("drain.timeout", json!("7m")),
            setting("drain.timeout", json!("8m")),
            setting("retry.interval", json!("soon")),
        ];
        let loaded = Bootstrap::load_over(Some(&file), &settings, &AnyFilter).unwrap();
        let bootstrap = loaded.bootstrap;
        assert!(!bootstrap.access_log.enabled);
        assert_eq!(bootstrap.access_log.format, Default::default());
        let timeout = std::time::Duration::from(bootstrap.drain.timeout);
        assert_eq!(timeout.as_secs(), 420);
        let SettingOutcome::Refused(reason) = &loaded.outcomes[4] else {
            panic!("{:?}", loaded.outcomes);
        };
        assert!(reason.contains("\"soon\" is not a duration"), "{reason}");
        use SettingOutcome::{Applied, Overruled};
        assert_eq!(
            loaded.outcomes[..4],
            [Applied, Overruled, Applied, Overruled]
        );
    }

    #[test]
    fn without_a_file_settings_and_defaults_are_all_there_is() {
        let settings = [setting("accessLog.format", json!("text"))];
        let loaded = Bootstrap::load_over(None, &settings, &AnyFilter).unwrap();
        let mut expected = Bootstrap::default();
        expected.access_log.format = crate::bootstrap::AccessLogFormat::Text;
        assert_eq!(loaded.bootstrap, expected);
    }
}
