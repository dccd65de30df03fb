//! Works a file of values off the table: what is taken over, what has no place, what nobody knows.

use serde_json::{Map, Value, json};
use sluice_crds::duration;

use super::table::{DEFAULTS, Fate, TABLE, TLS_SECRET};

/// Seconds that the chart lets pass between SIGTERM and the end of accepting (`proxy.drain.delay`).
const DRAIN_DELAY: u64 = 5;

/// The chart's own values where the file has none.
const DRAIN_TIMEOUT: u64 = 300;
const GRACE: u64 = 330;

/// Everything about one file.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Values of our chart.
    pub(super) values: Map<String, Value>,
    /// How many of the file's have a place among them.
    pub(super) taken: usize,
    /// By reason: those that have it.
    pub(super) without: Vec<(&'static str, Vec<String>)>,
    /// Each with the value it had.
    pub(super) unknown: Vec<String>,
    /// What else is to be known.
    pub(super) notes: Vec<String>,
}

/// Accounts for every value of a file.
pub(super) fn account(values: &Map<String, Value>) -> Account {
    let mut account = Account::default();
    let values = &Value::Object(values.clone());
    for (path, fate) in TABLE {
        if let Some(value) = find(values, path) {
            account.settle(values, path, *fate, value);
        }
    }
    for (path, value) in DEFAULTS {
        account.presume(values, path, value);
    }
    account.tls_secret(values);
    account.grace();
    account.memory();
    account.kthena_metrics();
    unknown("", values, &mut account.unknown);
    account
}

impl Account {
    fn settle(&mut self, values: &Value, path: &str, fate: Fate, value: &Value) {
        match fate {
            Fate::Value(ours) => {
                self.taken += 1;
                set(&mut self.values, ours, value.clone());
            }
            Fate::Switch(ours) => {
                self.taken += 1;
                for path in ours {
                    let on = find(&Value::Object(self.values.clone()), path) != Some(&json!(false));
                    set(&mut self.values, path, json!(on && *value != json!(false)));
                }
            }
            Fate::ControlEnvironment(name) => {
                self.taken += 1;
                if value.as_f64().is_some_and(|number| number > 0.0) {
                    self.environment(name, value);
                }
            }
            Fate::None(reason) => {
                for leaf in leaves(path, value) {
                    // What the table names below this one has its own line there.
                    if rule(&leaf) == Some(path) {
                        let value = find(values, &leaf).unwrap_or(&Value::Null);
                        self.leave(reason, named(&leaf, value));
                    }
                }
            }
        }
    }

    fn leave(&mut self, reason: &'static str, value: String) {
        match self.without.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, values)) => values.push(value),
            None => self.without.push((reason, vec![value])),
        }
    }

    fn environment(&mut self, name: &str, value: &Value) {
        let entry = json!({ "name": name, "value": show(value) });
        let control = self.values.entry("control").or_insert_with(|| json!({}));
        let list = control
            .as_object_mut()
            .map(|control| control.entry("env").or_insert_with(|| json!([])));
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.push(entry);
        }
    }

    fn presume(&mut self, values: &Value, path: &str, value: &str) {
        let is_off =
            find(&Value::Object(self.values.clone()), "proxy.enabled") == Some(&json!(false));
        if find(values, path).is_some() || is_off {
            return;
        }
        if let Some((_, Fate::Value(ours))) = TABLE.iter().find(|(known, _)| *known == path) {
            set(&mut self.values, ours, json!(value));
            self.notes
                .push(format!("{ours}: {value} is Kthena's default"));
        }
    }

    fn tls_secret(&mut self, values: &Value) {
        let is_on = find(values, "networking.kthenaRouter.tls.enabled") == Some(&json!(true));
        if is_on && find(values, "networking.kthenaRouter.tls.secretName").is_none() {
            set(&mut self.values, "proxy.tls.secretName", json!(TLS_SECRET));
            let note = format!(
                "proxy.tls.secretName: {TLS_SECRET} is Kthena's default; it goes when cert-manager's Certificate of that \
                 chart goes"
            );
            self.notes.push(note);
        }
    }

    /// The chart refuses a pod that would be killed while it drains.
    fn grace(&mut self) {
        let ours = Value::Object(self.values.clone());
        let drain = find(&ours, "proxy.drain.timeout");
        let grace = find(&ours, "proxy.terminationGracePeriodSeconds");
        if drain.is_none() && grace.is_none() {
            return;
        }
        let seconds = |text: &str| {
            let duration = duration::parse(text).ok()?;
            Some(std::time::Duration::from(duration).as_secs())
        };
        let drain = drain
            .and_then(Value::as_str)
            .map_or(Some(DRAIN_TIMEOUT), seconds);
        let grace = grace.map_or(Some(GRACE), Value::as_u64);
        let (Some(drain), Some(grace)) = (drain, grace) else {
            return;
        };
        let least = drain + DRAIN_DELAY + 1;
        if grace < least {
            set(
                &mut self.values,
                "proxy.terminationGracePeriodSeconds",
                json!(least),
            );
            self.notes.push(format!(
                "proxy.terminationGracePeriodSeconds: raised from {grace} to {least}, or streams would be cut while they drain"
            ));
        }
    }

    fn memory(&mut self) {
        let ours = Value::Object(self.values.clone());
        let limit = find(&ours, "proxy.resources.limits.memory").map(show);
        if let Some(limit) =
            limit.filter(|limit| mebibytes(limit).is_none_or(|limit| limit < 1024.0))
        {
            self.notes.push(format!(
                "proxy.resources: bodies and what is known of engines' caches may take 256 MiB each, which {limit} is little \
                 for: raise it to 1Gi, or lower proxy.config.limits"
            ));
        }
    }

    fn kthena_metrics(&mut self) {
        set(&mut self.values, "proxy.kthenaMetrics.enabled", json!(true));
        let note = "proxy.kthenaMetrics.enabled: Kthena's metric families beside ours, for its dashboards and alerts";
        self.notes.push(note.to_owned());
    }
}

/// The value at a dotted path.
fn find<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(values, |value, key| value.get(key))
        .filter(|value| !value.is_null())
}

fn set(values: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            values.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let below = values.entry(first).or_insert_with(|| json!({}));
            if let Some(below) = below.as_object_mut() {
                set(below, rest, value);
            }
        }
    }
}

/// The entry of the table that speaks of `path`: the longest that it lies at or below.
fn rule(path: &str) -> Option<&'static str> {
    let speaks = |known: &&'static str| {
        path.strip_prefix(*known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    TABLE
        .iter()
        .map(|(known, _)| *known)
        .filter(speaks)
        .max_by_key(|known| known.len())
}

/// Paths of everything at or below `path` that is no mapping, or an empty one.
fn leaves(path: &str, value: &Value) -> Vec<String> {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => map
            .iter()
            .flat_map(|(key, value)| leaves(&join(path, key), value))
            .collect(),
        None => vec![path.to_owned()],
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn unknown(path: &str, value: &Value, found: &mut Vec<String>) {
    if !path.is_empty() && rule(path).is_some() {
        return;
    }
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, value) in map {
                unknown(&join(path, key), value, found);
            }
        }
        // `networking: {}` and `networking:` say nothing.
        Some(_) => {}
        None if value.is_null()
            && TABLE
                .iter()
                .any(|(known, _)| known.starts_with(&format!("{path}."))) => {}
        None => found.push(named(path, value)),
    }
}

/// A value with its path. A credential that stands in a file of values must not stand in a comment as well.
fn named(path: &str, value: &Value) -> String {
    let key = path.rsplit('.').next().unwrap_or(path).to_lowercase();
    let is_credential = ["password", "secretkey", "accesskey", "token"]
        .iter()
        .any(|word| key.contains(word));
    match is_credential && !value.is_null() && value != "" {
        true => format!("{path}: (not shown)"),
        false => format!("{path}: {}", show(value)),
    }
}

/// On one line, and a short one.
fn show(value: &Value) -> String {
    let text = match value {
        Value::String(text) if text.is_empty() => "\"\"".into(),
        Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    };
    text.chars().take(80).collect()
}

/// Of a quantity as people write memory; `None`: written otherwise.
fn mebibytes(quantity: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 6] = [
        ("Ki", 1.0 / 1024.0),
        ("Mi", 1.0),
        ("Gi", 1024.0),
        ("M", 1e6 / 1_048_576.0),
        ("G", 1e9 / 1_048_576.0),
        ("", 1.0 / 1_048_576.0),
    ];
    UNITS.iter().find_map(|(unit, factor)| {
        let number: f64 = quantity.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}
