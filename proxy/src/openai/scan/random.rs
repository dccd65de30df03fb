//! Random request bodies for tests: any JSON, written in any style the grammar allows.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Writes JSON as strangely as is still valid: random white space, escapes and nesting.
pub(in crate::openai) struct Writer {
    pub(in crate::openai) random: SmallRng,
    out: String,
}

const KNOWN: [&str; 18] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "messages",
    "prompt",
    "input",
    "system",
    "tools",
    "user",
    "session_id",
    "metadata",
    "prompt_cache_key",
    "cache_salt",
    "documents",
    "instructions",
];
const LETTERS: [char; 20] = [
    'a', 'b', 'l', 'Z', '0', ' ', '"', '\\', '/', '\n', '\t', '\r', '\u{8}', '\0', '{', ']', ',',
    'é', '漢', '😀',
];

/// A random JSON object in which no top-level key stands twice.
pub(in crate::openai) fn document(seed: u64) -> String {
    let mut writer = Writer::new(seed);
    writer.document();
    writer.out
}

impl Writer {
    pub(in crate::openai) fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            out: String::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn document(&mut self) {
        let mut keys: Vec<String> = KNOWN.iter().map(ToString::to_string).collect();
        keys.retain(|_| self.chance(40));
        for extra in 0..self.random.random_range(0..4) {
            let place = self.random.random_range(0..=keys.len());
            keys.insert(place, format!("x{extra}\"{}", self.random.random::<u8>()));
        }
        let turn = self.random.random_range(0..keys.len().max(1));
        let turn = turn.min(keys.len());
        keys.rotate_left(turn);
        self.space();
        self.out.push('{');
        for (place, key) in keys.iter().enumerate() {
            if place > 0 {
                self.out.push(',');
            }
            self.key(key);
            self.value_of(key);
        }
        self.space();
        self.out.push('}');
        self.space();
    }

    fn key(&mut self, key: &str) {
        self.space();
        self.string(key);
        self.space();
        self.out.push(':');
        self.space();
    }

    /// Mostly the type the field has, now and then any other.
    fn value_of(&mut self, key: &str) {
        if self.chance(15) {
            return self.value(3);
        }
        match key {
            "stream" => {
                let value = self.chance(50);
                self.out.push_str(if value { "true" } else { "false" });
            }
            "max_tokens" | "max_completion_tokens" | "n" => {
                let value = self.random.random_range(0..5000).to_string();
                self.out.push_str(&value);
            }
            "stream_options" => self.object_of(&["include_usage", "continuous_usage_stats", "z"]),
            "metadata" => self.object_of(&["session_id", "user_id", "a"]),
            "messages" | "input" | "prompt" | "documents" | "system" => self.messages(),
            "tools" => self.value(4),
            _ => {
                let text = self.text();
                self.string(&text);
            }
        }
    }

    fn object_of(&mut self, keys: &[&str]) {
        self.out.push('{');
        let mut first = true;
        for key in keys {
            if self.chance(50) {
                continue;
            }
            if !std::mem::take(&mut first) {
                self.out.push(',');
            }
            self.key(key);
            let kind = self.random.random_range(0..4);
            match kind {
                0 => self.out.push_str("true"),
                1 => self.out.push_str("false"),
                _ => self.value(1),
            }
            self.space();
        }
        self.space();
        self.out.push('}');
    }

    fn messages(&mut self) {
        self.out.push('[');
        for place in 0..self.random.random_range(0..4) {
            if place > 0 {
                self.out.push(',');
            }
            self.space();
            match self.random.random_range(0..5) {
                0 => self.value(2),
                1 => self.object_of(&["role", "content", "text"]),
                _ => {
                    let text = self.text();
                    self.out.push('{');
                    self.key("role");
                    self.string("user");
                    self.out.push(',');
                    self.key("content");
                    self.string(&text);
                    self.out.push('}');
                }
            }
            self.space();
        }
        self.out.push(']');
    }

    fn value(&mut self, levels: u32) {
        match self.random.random_range(0..if levels == 0 { 5 } else { 8 }) {
            0 => self.out.push_str("null"),
            1 => self.out.push_str("true"),
            2 => self.out.push_str("-12.5e+3"),
            3 => self.out.push('7'),
            4 => {
                let text = self.text();
                self.string(&text);
            }
            5 | 6 => {
                self.out.push('[');
                for place in 0..self.random.random_range(0..4) {
                    if place > 0 {
                        self.out.push(',');
                    }
                    self.space();
                    self.value(levels - 1);
                    self.space();
                }
                self.out.push(']');
            }
            _ => {
                self.out.push('{');
                for place in 0..self.random.random_range(0..4) {
                    if place > 0 {
                        self.out.push(',');
                    }
                    let key = self.text();
                    self.key(&key);
                    self.value(levels - 1);
                    self.space();
                }
                self.out.push('}');
            }
        }
    }

    fn text(&mut self) -> String {
        let length = match self.random.random_range(0..10) {
            0 => self.random.random_range(50..200),
            _ => self.random.random_range(0..12),
        };
        (0..length)
            .map(|_| LETTERS[self.random.random_range(0..LETTERS.len())])
            .collect()
    }

    fn space(&mut self) {
        while self.chance(12) {
            let space = [' ', '\n', '\t', '\r'][self.random.random_range(0..4)];
            self.out.push(space);
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            let must = matches!(letter, '"' | '\\') || letter < ' ';
            if !must && !self.chance(8) {
                self.out.push(letter);
                continue;
            }
            let short = match letter {
                '"' | '\\' | '/' => Some(letter),
                '\n' => Some('n'),
                '\t' => Some('t'),
                '\r' => Some('r'),
                '\u{8}' => Some('b'),
                _ => None,
            };
            match short {
                Some(short) if self.chance(70) => {
                    self.out.push('\\');
                    self.out.push(short);
                }
                _ => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.out.push('"');
    }
}
