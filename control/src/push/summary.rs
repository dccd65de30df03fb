//! What the gateways of one replica have acknowledged, document by document: what it tells the leader, which writes
//! statuses and knows no gateways but its own.
//!
//! Pure. A stream of summaries begins with everything; what follows is what has changed. Versions are hashes of contents,
//! so that replicas mean the same by them, whatever their own generations are.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use sluice_config::push::ResourceType;
use tonic_prost::ProstCodec;

use super::acks::{Finding, Programmed};

/// The method that other replicas call, as themselves; the request says nothing.
pub const METHOD: &str = "/sluice.control.v1.Replicas/Summaries";

/// Types of which statuses are written.
pub const DOCUMENTS: [ResourceType; 3] = [
    ResourceType::ModelServer,
    ResourceType::ExternalModelProvider,
    ResourceType::ModelRoute,
];

/// Documents in one message. What each says of refusals is bounded, so that a message is, too.
const MAX_DOCUMENTS: usize = 500;

/// Everything that one replica knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Gateways that are connected to it.
    pub proxies: usize,
    /// By type and name.
    pub documents: BTreeMap<(ResourceType, Arc<str>), DocumentSummary>,
}

/// One document at one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentSummary {
    /// The version that the replica pushes.
    pub version: Arc<str>,
    /// What its gateways say to that.
    pub programmed: Programmed,
}

/// A part of a summary, or of what has changed in one.
#[derive(Clone, PartialEq, Message)]
pub struct SummaryMessage {
    /// Tells a process from all others, also from its reader.
    #[prost(uint64, tag = "1")]
    pub instance: u64,
    /// The replica's pod.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Gateways that are connected to it.
    #[prost(uint32, tag = "3")]
    pub proxies: u32,
    /// New and changed ones.
    #[prost(message, repeated, tag = "4")]
    pub documents: Vec<DocumentMessage>,
    /// Those that are gone.
    #[prost(message, repeated, tag = "5")]
    pub removed: Vec<DocumentMessage>,
    /// More parts follow, and count together with this one.
    #[prost(bool, tag = "6")]
    pub more: bool,
}

/// One document; only type and name of one that is gone.
#[derive(Clone, PartialEq, Message)]
pub struct DocumentMessage {
    /// [`ResourceType::name`].
    #[prost(string, tag = "1")]
    pub kind: String,
    /// `namespace/name`.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version that the replica pushes.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Gateways that are sent it.
    #[prost(uint32, tag = "4")]
    pub connected: u32,
    /// Those that have it in force.
    #[prost(uint32, tag = "5")]
    pub acknowledged: u32,
    /// Those that refuse it.
    #[prost(uint32, tag = "6")]
    pub refusing: u32,
    /// Why they do.
    #[prost(message, repeated, tag = "7")]
    pub findings: Vec<FindingMessage>,
}

/// What some gateways have against a document.
#[derive(Clone, PartialEq, Message)]
pub struct FindingMessage {
    /// Field path; empty for the whole.
    #[prost(string, tag = "1")]
    pub path: String,
    /// What is wrong.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What to do.
    #[prost(string, tag = "3")]
    pub remedy: String,
}

/// Both directions of the method.
pub type SummaryCodec = ProstCodec<SummaryMessage, SummaryMessage>;

impl Summary {
    /// What has to be told to somebody who has been told `sent`, in messages of bounded size; at least one.
    pub fn since(&self, sent: &Self, instance: u64, name: &str) -> Vec<SummaryMessage> {
        let changed = self
            .documents
            .iter()
            .filter(|(key, document)| sent.documents.get(key) != Some(document))
            .map(|((kind, name), document)| document.message(*kind, name));
        let gone = sent.documents.keys();
        let gone = gone.filter(|key| !self.documents.contains_key(key));
        let removed: Vec<_> = gone.map(|(kind, name)| named(*kind, name)).collect();
        let changed: Vec<_> = changed.collect();
        let head = SummaryMessage {
            instance,
            name: name.to_owned(),
            proxies: count(self.proxies),
            removed,
            ..SummaryMessage::default()
        };
        let mut parts: Vec<_> = changed
            .chunks(MAX_DOCUMENTS)
            .map(|documents| SummaryMessage {
                documents: documents.to_vec(),
                more: true,
                ..head.clone()
            })
            .collect();
        // Named once, in the first.
        for part in parts.iter_mut().skip(1) {
            part.removed.clear();
        }
        match parts.last_mut() {
            Some(last) => last.more = false,
            None => parts.push(head),
        }
        parts
    }

    /// Takes what has changed. What makes no sense, to this version of the program, is left out.
    pub fn take(&mut self, message: SummaryMessage) {
        self.proxies = message.proxies as usize;
        for removed in message.removed {
            if let Some(kind) = kind(&removed.kind) {
                self.documents.remove(&(kind, removed.name.into()));
            }
        }
        for document in message.documents {
            if let Some(kind) = kind(&document.kind) {
                let key = (kind, document.name.as_str().into());
                self.documents.insert(key, document.into());
            }
        }
    }

    /// What the replica's gateways say to a version of a document. Of one that the replica pushes in another version,
    /// or does not know, nobody has that version.
    pub fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> Programmed {
        let none_of = |connected| Programmed {
            connected,
            ..Programmed::default()
        };
        match self.documents.get(&(kind, Arc::from(name))) {
            Some(document) if *document.version == *version => document.programmed.clone(),
            Some(document) => none_of(document.programmed.connected),
            None => none_of(self.proxies),
        }
    }
}

impl DocumentSummary {
    fn message(&self, kind: ResourceType, name: &str) -> DocumentMessage {
        let finding = |finding: &Finding| FindingMessage {
            path: finding.path.clone(),
            message: finding.message.clone(),
            remedy: finding.remedy.clone(),
        };
        DocumentMessage {
            version: self.version.to_string(),
            connected: count(self.programmed.connected),
            acknowledged: count(self.programmed.acknowledged),
            refusing: count(self.programmed.refusing),
            findings: self.programmed.findings.iter().map(finding).collect(),
            ..named(kind, name)
        }
    }
}

impl From<DocumentMessage> for DocumentSummary {
    fn from(message: DocumentMessage) -> Self {
        let findings = message.findings.into_iter().map(|finding| Finding {
            path: finding.path,
            message: finding.message,
            remedy: finding.remedy,
        });
        Self {
            version: message.version.into(),
            programmed: Programmed {
                connected: message.connected as usize,
                acknowledged: message.acknowledged as usize,
                refusing: message.refusing as usize,
                findings: findings.collect(),
            },
        }
    }
}

fn named(kind: ResourceType, name: &str) -> DocumentMessage {
    DocumentMessage {
        kind: kind.name().to_owned(),
        name: name.to_owned(),
        ..DocumentMessage::default()
    }
}

fn kind(name: &str) -> Option<ResourceType> {
    DOCUMENTS.into_iter().find(|kind| kind.name() == name)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: &str, connected: usize, refusing: usize) -> DocumentSummary {
        let finding = Finding {
            path: "spec.x".into(),
            message: "no such thing".into(),
            remedy: "remove it".into(),
        };
        let mut programmed = Programmed {
            connected,
            acknowledged: connected - refusing,
            ..Programmed::default()
        };
        for _ in 0..refusing {
            programmed.refuse([&finding]);
        }
        DocumentSummary {
            version: version.into(),
            programmed,
        }
    }

    fn summary(routes: impl IntoIterator<Item = (String, DocumentSummary)>) -> Summary {
        let routes = routes.into_iter();
        Summary {
            proxies: 3,
            documents: routes
                .map(|(name, document)| ((ResourceType::ModelRoute, name.into()), document))
                .collect(),
        }
    }

    /// What somebody knows who has taken all these, from their bytes on.
    fn told(mut known: Summary, parts: Vec<SummaryMessage>) -> Summary {
        for part in parts {
            let bytes = part.encode_to_vec();
            known.take(SummaryMessage::decode(&*bytes).unwrap());
        }
        known
    }

    #[test]
    fn everything_arrives_in_parts_of_which_only_the_last_is_the_last() {
        let names = (0..MAX_DOCUMENTS + 1).map(|number| format!("a/{number}"));
        let all = summary(names.map(|name| (name, document("1", 3, 2))));
        let parts = all.since(&Summary::default(), 7, "control-0");
        let more: Vec<_> = parts.iter().map(|part| part.more).collect();
        assert_eq!(more, [true, false]);
        assert!(parts.iter().all(|part| part.instance == 7));
        assert_eq!(
            parts[0].documents[0].findings.len(),
            1,
            "said once for both"
        );
        assert_eq!(told(Summary::default(), parts), all);
    }

    #[test]
    fn only_what_has_changed_follows() {
        let document = |version| document(version, 3, 0);
        let before = summary([
            ("a/same".into(), document("1")),
            ("a/changed".into(), document("1")),
            ("a/gone".into(), document("1")),
        ]);
        let after = summary([
            ("a/same".into(), document("1")),
            ("a/changed".into(), document("2")),
        ]);
        let parts = after.since(&before, 7, "control-0");
        assert_eq!(parts.len(), 1);
        let names = |documents: &[DocumentMessage]| -> Vec<String> {
            documents.iter().map(|one| one.name.clone()).collect()
        };
        assert_eq!(names(&parts[0].documents), ["a/changed"]);
        assert_eq!(names(&parts[0].removed), ["a/gone"]);
        assert_eq!(told(before, parts), after);
        let nothing = after.since(&after, 7, "control-0");
        assert_eq!((nothing.len(), nothing[0].documents.len()), (1, 0));
    }

    #[test]
    fn of_another_version_and_of_an_unknown_document_nobody_has_it() {
        let all = summary([("a/r".into(), document("1", 2, 1))]);
        let ask = |name, version| {
            let programmed = all.programmed(ResourceType::ModelRoute, name, version);
            (programmed.connected, programmed.acknowledged)
        };
        assert_eq!(ask("a/r", "1"), (2, 1));
        assert_eq!(ask("a/r", "2"), (2, 0));
        assert_eq!(ask("a/other", "1"), (3, 0), "all of its gateways wait");
    }

    #[test]
    fn kinds_that_are_not_known_here_are_left_out() {
        let odd = DocumentMessage {
            kind: "ModelRouteOfTomorrow".into(),
            name: "a/r".into(),
            ..DocumentMessage::default()
        };
        let mut known = Summary::default();
        known.take(SummaryMessage {
            proxies: 1,
            documents: vec![odd],
            ..SummaryMessage::default()
        });
        assert_eq!((known.proxies, known.documents.len()), (1, 0));
    }
}
