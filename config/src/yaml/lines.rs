//! Where each field of a YAML stream stands.
//!
//! Not for values: those come from `serde_yaml`. If the two parsers disagree, a line is less exact,
//! and nothing else is wrong.

use saphyr_parser::{Event, Parser};

use crate::path::{FieldPath, Step};

/// Deeper nesting than `serde_yaml` accepts; keeps the tree's drop off the stack's end.
const MAX_DEPTH: usize = 200;

/// Trees of positions, one per document.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<Node>);

#[derive(Debug)]
struct Node {
    line: usize,
    children: Children,
}

#[derive(Debug)]
enum Children {
    None,
    Items(Vec<Node>),
    /// Key, line of the key, value.
    Entries(Vec<(String, usize, Node)>),
}

/// A collection being read, with the key that waits for its value.
struct Open {
    node: Node,
    key: Option<(String, usize)>,
}

impl Lines {
    /// Positions of `text`, up to the first thing that is not YAML.
    pub(crate) fn of(text: &str) -> Self {
        let mut documents = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        let mut top: Option<Node> = None;
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            let line = span.start.line();
            let done = match event {
                Event::DocumentStart(_) => {
                    top = Some(Node {
                        line,
                        children: Children::None,
                    });
                    None
                }
                Event::DocumentEnd => {
                    documents.extend(top.take());
                    None
                }
                Event::MappingStart(..) | Event::SequenceStart(..) if open.len() >= MAX_DEPTH => {
                    break;
                }
                Event::MappingStart(..) => {
                    open.push(Open::new(line, Children::Entries(Vec::new())));
                    None
                }
                Event::SequenceStart(..) => {
                    open.push(Open::new(line, Children::Items(Vec::new())));
                    None
                }
                Event::MappingEnd | Event::SequenceEnd => open.pop().map(|open| (None, open.node)),
                Event::Scalar(text, ..) => Some((
                    Some(text.into_owned()),
                    Node {
                        line,
                        children: Children::None,
                    },
                )),
                Event::Alias(_) => Some((
                    None,
                    Node {
                        line,
                        children: Children::None,
                    },
                )),
                Event::Nothing | Event::StreamStart | Event::StreamEnd => None,
            };
            if let Some((text, node)) = done {
                match open.last_mut() {
                    Some(parent) => parent.add(text, node),
                    None => top = Some(node),
                }
            }
        }
        Self(documents)
    }

    /// Line of `path`, or of the deepest part of it that exists. Of two equal last keys, `second`
    /// asks for the last one.
    pub(crate) fn find(&self, document: usize, path: &FieldPath, second: bool) -> usize {
        let Some(mut node) = self.0.get(document) else {
            return 1;
        };
        let mut line = node.line;
        let steps = path.steps();
        for (at, step) in steps.iter().enumerate() {
            let want_last = second && at + 1 == steps.len();
            match (step, &node.children) {
                (Step::Index(index), Children::Items(items)) => match items.get(*index) {
                    Some(item) => (line, node) = (item.line, item),
                    None => break,
                },
                (Step::Key(key), Children::Entries(entries)) => {
                    let mut found = entries.iter().filter(|(name, ..)| name == key);
                    let entry = if want_last {
                        found.next_back()
                    } else {
                        found.next()
                    };
                    match entry {
                        Some((_, key_line, value)) => (line, node) = (*key_line, value),
                        None => break,
                    }
                }
                _ => break,
            }
        }
        line
    }
}

impl Open {
    fn new(line: usize, children: Children) -> Self {
        Self {
            node: Node { line, children },
            key: None,
        }
    }

    /// The next item, key or value of this collection.
    fn add(&mut self, text: Option<String>, node: Node) {
        match &mut self.node.children {
            Children::None => {}
            Children::Items(items) => items.push(node),
            Children::Entries(entries) => match self.key.take() {
                Some((key, line)) => entries.push((key, line, node)),
                None => self.key = Some((text.unwrap_or_default(), node.line)),
            },
        }
    }
}
