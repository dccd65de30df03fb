//! kthena-router's environment variables, and what they are here; and our own.

use anyhow::Context;
use serde_json::{Value, json};
use sluice_config::Bootstrap;
use sluice_config::bootstrap::Setting;

/// Ours: exports Kthena's metric families.
const KTHENA_METRICS: &str = "SLUICE_KTHENA_METRICS";

/// One of Kthena's variables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    here: Here,
}

/// What a variable is here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Here {
    /// A field of the bootstrap file that is true or false.
    Bool(&'static str),
    /// A field that is a text.
    Text(&'static str),
    /// Something that is off here, as it is in Kthena unless this says otherwise.
    Off(&'static str),
    /// Nothing, and why.
    Nothing(&'static str),
}

/// A variable that is set: the field it sets, if any, or what is wrong with its value.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) variable: Variable,
    pub(super) value: Result<Option<Setting>, String>,
}

const FAIRNESS: &str = "fairness between users is not there yet";
const BOOST: &str = "boosting of sessions is not there yet; `scheduling: {policy: session}` keeps them on one engine";
const REDIS: &str = "no Redis is used: each gateway knows its engines' caches by itself";

const fn variable(name: &'static str, here: Here) -> Variable {
    Variable { name, here }
}

const VARIABLES: [Variable; 26] = [
    variable("ACCESS_LOG_ENABLED", Here::Bool("accessLog.enabled")),
    variable("ACCESS_LOG_FORMAT", Here::Text("accessLog.format")),
    variable("ACCESS_LOG_OUTPUT", Here::Text("accessLog.output")),
    variable("DRAIN_TIMEOUT", Here::Text("drain.timeout")),
    variable(
        "METRICS_SCRAPE_INTERVAL",
        Here::Nothing(
            "engines are asked at a pace that follows their load; `engines.metrics` switches it off",
        ),
    ),
    variable("ENABLE_FAIRNESS_SCHEDULING", Here::Off(FAIRNESS)),
    variable("FAIRNESS_WINDOW_SIZE", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_INPUT_TOKEN_WEIGHT", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_OUTPUT_TOKEN_WEIGHT", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_QUEUE_TIMEOUT", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_MAX_CONCURRENT", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_MAX_QPS", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_PRIORITY_REFRESH_RETRIES", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_REBUILD_THRESHOLD", Here::Nothing(FAIRNESS)),
    variable("FAIRNESS_PRIORITY_TOKEN_WEIGHT", Here::Nothing(FAIRNESS)),
    variable(
        "FAIRNESS_PRIORITY_REQUEST_NUM_WEIGHT",
        Here::Nothing(FAIRNESS),
    ),
    variable("ENABLE_SESSION_BOOST", Here::Off(BOOST)),
    variable("SESSION_BOOST_HEADER", Here::Nothing(BOOST)),
    variable("SESSION_BOOST_MAX_SESSIONS", Here::Nothing(BOOST)),
    variable("SESSION_BOOST_INFLIGHT_PER_POD", Here::Nothing(BOOST)),
    variable("SESSION_BOOST_GRACE_PERIOD", Here::Nothing(BOOST)),
    variable("SESSION_BOOST_TIMEOUT", Here::Nothing(BOOST)),
    variable("REDIS_HOST", Here::Nothing(REDIS)),
    variable("REDIS_PORT", Here::Nothing(REDIS)),
    variable("REDIS_PASSWORD", Here::Nothing(REDIS)),
    variable(
        "KTHENA_ROUTER_JWT_AUTH_ENABLED",
        Here::Nothing("tokens are asked for where `jwksUri` is set"),
    ),
];

impl Variable {
    /// Why it sets nothing.
    pub(super) fn meaning(&self) -> &'static str {
        match self.here {
            Here::Off(why) | Here::Nothing(why) => why,
            Here::Bool(path) | Here::Text(path) => path,
        }
    }

    fn read(self, value: &str) -> Result<Option<Setting>, String> {
        let neither = || format!("{value:?} is neither true nor false");
        match self.here {
            Here::Bool(path) => {
                let value = json!(boolean(value).ok_or_else(neither)?);
                Ok(Some(Setting { path, value }))
            }
            Here::Text(path) => {
                let value = Value::from(value);
                Ok(Some(Setting { path, value }))
            }
            Here::Off(why) => match boolean(value).ok_or_else(neither)? {
                true => Err(why.to_owned()),
                false => Ok(None),
            },
            Here::Nothing(_) => Ok(None),
        }
    }
}

impl Mapped {
    pub(super) fn setting(&self) -> Option<Setting> {
        self.value.as_ref().ok()?.clone()
    }
}

/// Those of Kthena's variables that are set, in Kthena's order. Its rule: an empty one is none.
pub(super) fn map(environment: &[(String, String)]) -> Vec<Mapped> {
    let mapped = VARIABLES.into_iter().filter_map(|variable| {
        let value = variable.read(get(environment, variable.name)?);
        Some(Mapped { variable, value })
    });
    mapped.collect()
}

/// Our own variables, which go before the bootstrap file.
pub(super) fn own(
    environment: &[(String, String)],
    bootstrap: &mut Bootstrap,
) -> anyhow::Result<()> {
    if let Some(value) = get(environment, KTHENA_METRICS) {
        let wrong = || format!("{KTHENA_METRICS}: {value:?} is neither true nor false");
        bootstrap.metrics.kthena = boolean(value).with_context(wrong)?;
    }
    Ok(())
}

fn get<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = environment.iter().filter(|(found, _)| found == name);
    let (_, value) = found.next()?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
