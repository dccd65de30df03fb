//! Does a cut text give the ids of the whole one? Asked once for every tokenizer that is loaded, with texts that
//! are hard for known families: spaces at either side of a special token, the start of a prompt, long text.

use super::{Cutting, Encoder, Memo};

/// Texts around and between special tokens.
const SAMPLES: [&str; 12] = [
    "a",
    " a",
    "a ",
    "  two  spaces  ",
    "\nuser\n\nHi, it's 2024-07-26!\r\n",
    "\t",
    "The cat sat on the mat and x1 = y_2; naïve café, İstanbul",
    "日本語のテキスト、中文文本。한국어",
    "👩‍🚀🇫🇷 e\u{301}\u{323} \u{fb01} ａｂｃ",
    "<|not|a|token|> <s </s",
    "'s 'LL don't",
    "\u{a0}\u{200b}x \u{2028}y",
];

/// Special tokens tried: the checks' number is its square.
const TOKENS: usize = 6;

/// The finest cutting of `encoder` under which all samples come out right.
pub(super) fn trusted(encoder: &mut Encoder) -> Cutting {
    let samples = samples(encoder);
    let mut cutting = encoder.cutting;
    loop {
        if cutting == Cutting::Nowhere || all_equal(encoder, &samples) {
            return cutting;
        }
        cutting = match cutting {
            Cutting::Words => Cutting::SpecialTokens,
            Cutting::SpecialTokens | Cutting::Nowhere => Cutting::Nowhere,
        };
        encoder.cutting = cutting;
    }
}

fn all_equal(encoder: &Encoder, samples: &[String]) -> bool {
    // One memo for all: parts that come again must fit where they come again.
    let memo = Memo::new(8 << 20);
    samples.iter().all(|sample| {
        [false, true]
            .into_iter()
            .all(|special| match encoder.whole(sample, special) {
                Ok(ids) => encoder
                    .encode(&memo, sample, special)
                    .is_ok_and(|cut| cut == ids),
                // The library refuses the text either way.
                Err(_) => true,
            })
    })
}

fn samples(encoder: &Encoder) -> Vec<String> {
    let mut tokens: Vec<String> = encoder
        .splitter
        .iter()
        .flat_map(|splitter| splitter.tokens().map(str::to_owned))
        .collect();
    tokens.sort_unstable();
    // From all over the list: reserved tokens with numbers fill most of it in some models.
    let step = tokens.len().div_ceil(TOKENS).max(1);
    let tokens: Vec<String> = tokens.into_iter().step_by(step).collect();
    let mut samples: Vec<String> = SAMPLES.iter().map(|&sample| sample.to_owned()).collect();
    for (at, sample) in SAMPLES.iter().enumerate() {
        let next = SAMPLES[(at + 1) % SAMPLES.len()];
        for (position, one) in tokens.iter().enumerate() {
            let two = &tokens[(position + at + 1) % tokens.len()];
            samples.push(format!("{one}{sample}{two}{next}"));
            samples.push(format!("{sample}{one}{two} {one}\n{next}{two}{sample}"));
        }
    }
    samples.push(SAMPLES.concat().repeat(16));
    samples.push(SAMPLES.join(" and then ").repeat(12));
    samples
}
