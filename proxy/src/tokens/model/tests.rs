//! Loading from folders and files, good and bad, and prompts to ids.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::tokens::request::{ApiKind, prompt};

const BYTE_LEVEL: &[u8] = include_bytes!("../../../tests/fixtures/tokenizers/byte-level.json");
const METASPACE: &[u8] = include_bytes!("../../../tests/fixtures/tokenizers/metaspace.json");
const CHATML: &str = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn rendered(model: &ModelTokenizer, body: Value) -> Result<String, Reason> {
    let prompt = prompt(ApiKind::Chat, body.to_string().as_bytes(), |tools| {
        model.content_format(tools)
    })?;
    let Prompt::Chat(chat) = prompt else {
        panic!("not a chat")
    };
    model.render(chat)
}

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}]})
}

#[test]
fn a_folder_gives_template_special_tokens_and_ids() {
    let config = json!({"bos_token": {"content": "<|endoftext|>", "lstrip": false}, "chat_template": "ignored"});
    let map = json!({"bos_token": "no", "eos_token": "<|im_end|>"});
    let folder = folder(&[
        ("tokenizer.json", BYTE_LEVEL),
        ("tokenizer_config.json", config.to_string().as_bytes()),
        ("special_tokens_map.json", map.to_string().as_bytes()),
        ("chat_template.jinja", CHATML.as_bytes()),
    ]);
    let model = ModelTokenizer::load(folder.path()).unwrap();
    assert_eq!(model.cutting(), Cutting::Words);
    assert_eq!(
        rendered(&model, hello()).unwrap(),
        "<|endoftext|><|im_start|>user\nHello<|im_end|>\n"
    );
    let memo = Memo::new(1 << 20);
    let prompt = prompt(ApiKind::Chat, hello().to_string().as_bytes(), |tools| {
        model.content_format(tools)
    })
    .unwrap();
    let ids = model.ids(&memo, prompt).unwrap();
    let whole = tokenizers::Tokenizer::from_bytes(BYTE_LEVEL).unwrap();
    let expected = whole
        .encode("<|endoftext|><|im_start|>user\nHello<|im_end|>\n", false)
        .unwrap();
    assert_eq!(&*ids, expected.get_ids());
    assert_eq!(
        *model.ids(&memo, Prompt::Ids([5, 6].into())).unwrap(),
        [5, 6]
    );
}

#[test]
fn named_templates_are_chosen_by_tools() {
    let config = json!({"chat_template": [
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}, {"name": "rag", "template": "{%"},
    ]});
    let folder = folder(&[
        ("tokenizer.json", BYTE_LEVEL),
        ("tokenizer_config.json", config.to_string().as_bytes()),
    ]);
    let model = ModelTokenizer::load(folder.path()).unwrap();
    assert_eq!(rendered(&model, hello()).unwrap(), "plain");
    let mut with_tools = hello();
    with_tools["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(rendered(&model, with_tools).unwrap(), "tools");
}

#[test]
fn templates_are_found_where_transformers_finds_them() {
    let config = json!({"chat_template": "config"}).to_string();
    let json = json!({"chat_template": "json"}).to_string();
    let tool = (
        "additional_chat_templates/tool_use.jinja",
        "tool".as_bytes(),
    );
    let all = [
        ("tokenizer.json", BYTE_LEVEL),
        ("tokenizer_config.json", config.as_bytes()),
        ("chat_template.json", json.as_bytes()),
        ("chat_template.jinja", "jinja".as_bytes()),
        tool,
    ];
    for (files, expected) in [(2, "config"), (3, "json"), (5, "jinja")] {
        let folder = folder(&all[..files]);
        let model = ModelTokenizer::load(folder.path()).unwrap();
        assert_eq!(rendered(&model, hello()).unwrap(), expected);
    }
}

#[test]
fn a_lone_file_tokenises_text_but_no_chat() {
    let folder = folder(&[("metaspace.json", METASPACE)]);
    let model = ModelTokenizer::load(&folder.path().join("metaspace.json")).unwrap();
    assert_eq!(rendered(&model, hello()), Err(Reason::NoTemplate));
    let text = Prompt::Text {
        text: "Hello".to_owned(),
        add_special_tokens: true,
    };
    let ids = model.ids(&Memo::new(1 << 20), text).unwrap();
    assert_eq!(ids[0], 1, "begins with <s>");
}

#[test]
fn a_class_that_sets_its_own_post_processor_overrides_the_definition() {
    let config = json!({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "bos_token": "<|endoftext|>"});
    let folder = folder(&[
        ("tokenizer.json", BYTE_LEVEL),
        ("tokenizer_config.json", config.to_string().as_bytes()),
    ]);
    let model = ModelTokenizer::load(folder.path()).unwrap();
    let ids = |add_special_tokens| {
        let text = Prompt::Text {
            text: "Hello".to_owned(),
            add_special_tokens,
        };
        model.ids(&Memo::new(1 << 20), text).unwrap()
    };
    assert_eq!(ids(true)[1..], ids(false)[..]);
}

#[test]
fn fingerprints_tell_tokenizers_and_templates_apart() {
    let load = |files: &[(&str, &[u8])]| {
        ModelTokenizer::load(folder(files).path())
            .unwrap()
            .fingerprint()
    };
    let plain = load(&[("tokenizer.json", BYTE_LEVEL)]);
    assert_eq!(plain, load(&[("tokenizer.json", BYTE_LEVEL)]));
    assert_ne!(plain, load(&[("tokenizer.json", METASPACE)]));
    assert_ne!(
        plain,
        load(&[
            ("tokenizer.json", BYTE_LEVEL),
            ("chat_template.jinja", b"x")
        ])
    );
}

#[test]
fn errors_say_which_file_and_what_to_do() {
    let error = |files: &[(&str, &[u8])]| {
        ModelTokenizer::load(folder(files).path())
            .unwrap_err()
            .to_string()
    };
    let missing = error(&[]);
    assert!(
        missing.contains("tokenizer.json") && missing.contains("mounted"),
        "{missing}"
    );
    let corrupt = error(&[("tokenizer.json", b"{\"model\": 1}")]);
    assert!(
        corrupt.contains("tokenizer.json") && corrupt.contains("not valid"),
        "{corrupt}"
    );
    let config = error(&[
        ("tokenizer.json", BYTE_LEVEL),
        ("tokenizer_config.json", b"["),
    ]);
    assert!(
        config.contains("tokenizer_config.json") && config.contains("copy it anew"),
        "{config}"
    );
    let template = error(&[
        ("tokenizer.json", BYTE_LEVEL),
        ("chat_template.jinja", b"{% if %}"),
    ]);
    assert!(
        template.contains("chat_template.jinja") && template.contains("does not compile"),
        "{template}"
    );
    let missing_path = ModelTokenizer::load(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(matches!(missing_path, TokenizerError::Read { .. }));
}

#[test]
fn a_file_beyond_the_limit_is_not_read() {
    let folder = folder(&[]);
    let path = folder.path().join("tokenizer.json");
    fs::File::create(&path)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    assert!(matches!(
        ModelTokenizer::load(folder.path()),
        Err(TokenizerError::TooLarge { .. })
    ));
}
