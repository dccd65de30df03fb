//! A request's prompt as cache knowledge sees it: one chain of hashes over its text, in the order that engines
//! render it.
//!
//! The text is hashed as sent, escapes and all: no rendering, no copy. Two clients that escape differently share
//! less than they could; one client's turns share all. Not for tokens: those come from `tokens`, if at all.

use xxhash_rust::xxh3::xxh3_64;

use super::chain::{ByteChain, Chain, seed};
use crate::openai::scan::{Facts, PromptKind, PromptSpan};

/// What an image, a sound or a file is taken to fill, in bytes of text: some thousand tokens.
const MEDIA_BYTES: u32 = 4096;

/// A prompt, ready to be looked up in any pool.
#[derive(Debug, Default)]
pub struct Prompt {
    /// Hashes of its text.
    pub chain: Chain,
    /// Tokens that the client sent as such; 0 of a text.
    pub tokens_sent: u32,
    /// LoRA adapter that it is for.
    pub adapter: Option<String>,
    /// Cache salt.
    pub salt: Option<String>,
}

impl Prompt {
    /// The prompt of a JSON body.
    pub fn of(body: &[u8], facts: &Facts, adapter: Option<&str>) -> Self {
        Self {
            chain: byte_chain(body, facts, adapter),
            tokens_sent: u32::try_from(facts.prompt_tokens).unwrap_or(u32::MAX),
            adapter: adapter.map(str::to_owned),
            salt: facts.cache_salt.clone(),
        }
    }

    /// Hash of its beginning, the same for all prompts that begin alike: what consistent hashing goes by.
    pub fn beginning(&self) -> Option<u64> {
        self.chain
            .hashes()
            .get(1)
            .or(self.chain.hashes().first())
            .copied()
    }
}

/// The chain over the prompt of a JSON body. Prompts for different adapters or salts share nothing.
fn byte_chain(body: &[u8], facts: &Facts, adapter: Option<&str>) -> Chain {
    let salt = facts.cache_salt.as_deref().unwrap_or_default();
    let tools = facts.tools.as_ref().map_or(0, |tools| tools.len());
    let seed = seed(&[adapter.unwrap_or_default(), salt]);
    let mut chain = Chain::bytes_of(seed, facts.prompt_bytes + tools);
    if let Some(tools) = &facts.tools {
        chain.push_digest(border(PromptKind::Calls));
        chain.push(&body[tools.clone()]);
    }
    // Wherever they stand in the body, engines render these first.
    let leads =
        |part: &&PromptSpan| matches!(part.kind, PromptKind::System | PromptKind::Instructions);
    for part in facts.prompt.iter().filter(leads) {
        push(&mut chain, body, part);
    }
    for part in facts.prompt.iter().filter(|part| !leads(part)) {
        push(&mut chain, body, part);
    }
    chain.finish()
}

fn push(chain: &mut ByteChain, body: &[u8], part: &PromptSpan) {
    let bytes = &body[part.span.clone()];
    match part.kind {
        // Their text follows as parts of its own.
        PromptKind::Messages | PromptKind::Items => {}
        PromptKind::Role => chain.push_digest(xxh3_64(bytes)),
        PromptKind::Media => chain.push_opaque(xxh3_64(bytes), MEDIA_BYTES),
        kind => {
            chain.push_digest(border(kind));
            chain.push(bytes);
        }
    }
}

/// Tells where a part of one kind begins.
fn border(kind: PromptKind) -> u64 {
    kind as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::scan::scan;

    fn chain(body: &str) -> Chain {
        let facts = scan(body.as_bytes()).unwrap();
        byte_chain(body.as_bytes(), &facts, None)
    }

    fn shared(a: &Chain, b: &Chain) -> u32 {
        let blocks = a
            .hashes()
            .iter()
            .zip(b.hashes())
            .take_while(|(a, b)| a == b)
            .count();
        a.covered(blocks)
    }

    #[test]
    fn a_later_turn_begins_with_the_one_before() {
        let (system, question) = ("s".repeat(1000), "q".repeat(1000));
        let first = format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{question}"}}]}}"#
        );
        let second = first.replace(
            "]}",
            r#",{"role":"assistant","content":"yes"},{"role":"user","content":"more"}]}"#,
        );
        let (first, second) = (chain(&first), chain(&second));
        assert_eq!(first.length(), 2000);
        assert_eq!(second.length(), 2007);
        assert_eq!(shared(&first, &second), 2000 / 64 * 64);
    }

    #[test]
    fn roles_tools_images_and_salts_tell_prompts_apart() {
        let text = "t".repeat(640);
        let message = |role: &str, more: &str, part: &str| {
            format!(
                r#"{{"model":"m"{more},"messages":[{{"role":"{role}","content":[{part}{{"type":"text","text":"{text}"}}]}}]}}"#
            )
        };
        let bodies = [
            message("user", "", ""),
            message("system", "", ""),
            message("user", r#","tools":[1]"#, ""),
            message("user", r#","cache_salt":"x""#, ""),
            message(
                "user",
                "",
                r#"{"type":"image_url","image_url":{"url":"a"}},"#,
            ),
            message(
                "user",
                "",
                r#"{"type":"image_url","image_url":{"url":"b"}},"#,
            ),
        ];
        let chains: Vec<_> = bodies.iter().map(|body| chain(body)).collect();
        for (index, one) in chains.iter().enumerate() {
            for other in &chains[index + 1..] {
                assert_eq!(shared(one, other), 0);
            }
        }
        let facts = scan(bodies[0].as_bytes()).unwrap();
        let adapted = byte_chain(bodies[0].as_bytes(), &facts, Some("lora"));
        assert_eq!(shared(&chains[0], &adapted), 0);
    }

    #[test]
    fn a_system_prompt_leads_wherever_it_stands() {
        let (system, question) = ("s".repeat(640), "q".repeat(640));
        let message = format!(r#""messages":[{{"role":"user","content":"{question}"}}]"#);
        let system = format!(r#""system":"{system}""#);
        let first = chain(&format!(r#"{{"model":"m",{message},{system}}}"#));
        let second = chain(&format!(r#"{{"model":"m",{system},{message}}}"#));
        assert_eq!(shared(&first, &second), first.length());
    }
}
