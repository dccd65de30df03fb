//! What may go wrong, and how it is written: `KIND[:ARGUMENT][@PROBABILITY]`.
//!
//! Only the words; the damage is done where bytes are written.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// One way to misbehave. N counts a stream's events, from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `refuse`: the listener is closed. Only as a flag or a switch: a request that is refused carries no header.
    Refuse,
    /// `hang-before-headers`: nothing is ever answered.
    HangBeforeHeaders,
    /// `hang-after-headers`: the head, and nothing more.
    HangAfterHeaders,
    /// `hang-mid-stream:N`: silence after N events (half of an unstreamed body).
    HangMidStream(usize),
    /// `reset-mid-stream:N`: TCP reset after N events (half of an unstreamed body).
    ResetMidStream(usize),
    /// `close-mid-stream:N`: the connection ends in order, the body does not.
    CloseMidStream(usize),
    /// `status:CODE`: that status with an error body; 429 and 503 say `retry-after: 1`.
    Status(u16),
    /// `garbage`: bytes that are not HTTP.
    Garbage,
    /// `slow-drip:MS`: one byte of the body per so many milliseconds.
    SlowDrip(Duration),
    /// `truncated-length`: the content length promises more than is sent.
    TruncatedLength,
    /// `close-delimited`: a body without length that ends with the connection.
    CloseDelimited,
    /// `no-usage`: usage is left out everywhere.
    NoUsage,
    /// `single-write`: head and whole stream in one write.
    SingleWrite,
    /// `split:N`: the body in pieces of N bytes, whatever the borders of events.
    Split(NonZeroUsize),
    /// `early-close`: the connection ends in place of an answer.
    EarlyClose,
    /// `keepalive-close`: a complete answer that claims keep-alive, then the connection ends.
    KeepaliveClose,
    /// `continue-100[:CODE]`: an interim response (100 unless said) before the answer.
    Interim(u16),
}

/// Why a fault cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No such kind.
    #[error("unknown fault `{0}`, see the list in the help text")]
    Unknown(String),
    /// The kind needs a number, or another one.
    #[error("fault `{0}` needs a fitting number, as in `{0}:3`")]
    Argument(String),
    /// Not a probability.
    #[error("`@{0}` is no probability, use a number from 0 to 1")]
    Probability(String),
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (kind, argument) = match text.trim().split_once(':') {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (text.trim(), None),
        };
        let missing = || FaultError::Argument(kind.to_owned());
        let number = || {
            argument
                .and_then(|text| text.parse::<usize>().ok())
                .ok_or_else(missing)
        };
        let code = |lowest: u16, highest: u16| {
            let code = argument.and_then(|text| text.parse::<u16>().ok());
            code.filter(|code| (lowest..=highest).contains(code))
                .ok_or_else(missing)
        };
        Ok(match kind {
            "refuse" => Self::Refuse,
            "hang-before-headers" => Self::HangBeforeHeaders,
            "hang-after-headers" => Self::HangAfterHeaders,
            "hang-mid-stream" => Self::HangMidStream(number()?),
            "reset-mid-stream" => Self::ResetMidStream(number()?),
            "close-mid-stream" => Self::CloseMidStream(number()?),
            "status" => Self::Status(code(200, 599)?),
            "garbage" => Self::Garbage,
            "slow-drip" => Self::SlowDrip(Duration::from_millis(number()? as u64)),
            "truncated-length" => Self::TruncatedLength,
            "close-delimited" => Self::CloseDelimited,
            "no-usage" => Self::NoUsage,
            "single-write" => Self::SingleWrite,
            "split" => Self::Split(NonZeroUsize::new(number()?).ok_or_else(missing)?),
            "early-close" => Self::EarlyClose,
            "keepalive-close" => Self::KeepaliveClose,
            "continue-100" if argument.is_none() => Self::Interim(100),
            "continue-100" => Self::Interim(code(100, 199)?),
            other => return Err(FaultError::Unknown(other.to_owned())),
        })
    }
}

/// A fault and how often it strikes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultRule {
    /// What happens.
    pub fault: Fault,
    /// To which share of the requests, 0 to 1.
    pub probability: f64,
}

impl FromStr for FaultRule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (fault, probability) = match text.split_once('@') {
            None => (text, 1.0),
            Some((fault, share)) => match share.parse::<f64>() {
                Ok(value) if (0.0..=1.0).contains(&value) => (fault, value),
                _ => return Err(FaultError::Probability(share.to_owned())),
            },
        };
        Ok(Self {
            fault: fault.parse()?,
            probability,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_with_argument_and_probability() {
        assert_eq!("early-close".parse(), Ok(Fault::EarlyClose));
        assert_eq!("hang-mid-stream:3".parse(), Ok(Fault::HangMidStream(3)));
        assert_eq!("continue-100:103".parse(), Ok(Fault::Interim(103)));
        let rule: FaultRule = "status:503@0.25".parse().unwrap();
        assert_eq!((rule.fault, rule.probability), (Fault::Status(503), 0.25));
        assert_eq!("garbage".parse::<FaultRule>().unwrap().probability, 1.0);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        assert_eq!(
            "explode".parse::<Fault>(),
            Err(FaultError::Unknown("explode".to_owned()))
        );
        assert_eq!(
            "split:0".parse::<Fault>(),
            Err(FaultError::Argument("split".to_owned()))
        );
        assert_eq!(
            "status:99".parse::<Fault>(),
            Err(FaultError::Argument("status".to_owned()))
        );
        assert_eq!(
            "garbage@2".parse::<FaultRule>(),
            Err(FaultError::Probability("2".to_owned()))
        );
    }
}
