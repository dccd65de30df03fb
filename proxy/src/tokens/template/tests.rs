//! The dialect piece by piece; whole templates are held against transformers in `tests/chat_templates.rs`.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::*;

fn compile(source: &str) -> ChatTemplate {
    ChatTemplate::compile(source, || UNIX_EPOCH + Duration::from_secs(1_722_006_249)).unwrap()
}

fn render(source: &str, context: Value) -> Result<String, TemplateError> {
    let Value::Object(context) = context else {
        panic!("a context is a map")
    };
    compile(source).render(&context)
}

fn text(source: &str, context: Value) -> String {
    render(source, context).unwrap()
}

#[test]
fn tojson_writes_what_json_dumps_writes() {
    let value = json!({"value": {"z": [1, 2.0, 1e16, null, true], "a": "<é'\"\\\n\u{1}>", "e": [], "o": {}}});
    assert_eq!(
        text("{{ value | tojson }}", value.clone()),
        r#"{"z": [1, 2.0, 1e+16, null, true], "a": "<é'\"\\\n\u0001>", "e": [], "o": {}}"#
    );
    assert_eq!(
        text(
            "{{ value | tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }}",
            value
        ),
        r#"{"a":"<\u00e9'\"\\\n\u0001>","e":[],"o":{},"z":[1,2.0,1e+16,null,true]}"#
    );
}

#[test]
fn tojson_indents_as_json_dumps() {
    let value = json!({"value": {"a": [1, {"b": []}], "c": {}}});
    assert_eq!(
        text("{{ value | tojson(indent=2) }}", value),
        "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}"
    );
}

#[test]
fn an_exception_of_the_template_is_its_own_error() {
    assert!(matches!(
        render("{{ raise_exception('no ' + 'way') }}", json!({})),
        Err(TemplateError::Raised)
    ));
    let inner = "{% macro m() %}{{ raise_exception('x') }}{% endmacro %}{% for i in [1] %}{{ m() }}{% endfor %}";
    assert!(matches!(
        render(inner, json!({})),
        Err(TemplateError::Raised)
    ));
    assert!(matches!(
        render("{{ a.b.c }}", json!({"a": {}})),
        Err(TemplateError::Failed(_))
    ));
}

/// Runs on the stack that a render is promised.
fn on_render_stack(work: fn()) {
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn an_endless_template_ends_with_an_error() {
    on_render_stack(|| {
        for source in [
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
            "{{ ('x' * 999999) * 999999 }}",
            "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
            "{% set ns = namespace(v=[1]) %}{% for a in range(9999) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v | tojson }}",
        ] {
            assert!(render(source, json!({})).is_err(), "{source}");
        }
    });
}

#[test]
fn values_nested_as_deep_as_the_fuel_allows_do_not_exhaust_the_stack() {
    on_render_stack(|| {
        let source = "{% set ns = namespace(v=[1]) %}{% for a in range(9999) %}{% for b in range(9999) %}{% set ns.v = [ns.v] %}{% endfor %}{% endfor %}";
        assert!(matches!(
            render(source, json!({})),
            Err(TemplateError::TooMuchWork)
        ));
    });
}

#[test]
fn generation_blocks_render_their_content_with_their_trim_marks() {
    let source = "{% for m in messages %}\n  {%- generation %}\n[{{ m }}]\n  {%- endgeneration -%}\n  .{% endfor %}";
    assert_eq!(text(source, json!({"messages": ["a", "b"]})), "[a].[b].");
}

#[test]
fn today_is_the_callers_clock_in_utc() {
    assert_eq!(
        text("{{ strftime_now('%d %B %Y') }}", json!({})),
        "26 July 2024"
    );
}

#[test]
fn tests_on_values_are_those_of_jinja() {
    let source = "{{ v is string }} {{ v is sequence }} {{ v is iterable }} {{ v is mapping }} {{ v is none }}";
    for (value, expected) in [
        (json!("s"), "True True True False False"),
        (json!([1]), "False True True False False"),
        (json!({"a": 1}), "False True True True False"),
        (json!(null), "False False False False True"),
        (json!(1), "False False False False False"),
    ] {
        assert_eq!(text(source, json!({"v": value})), expected);
    }
    assert_eq!(
        text("{{ x is defined }} {{ x }}{{ none }}{{ true }}", json!({})),
        "False NoneTrue"
    );
}

#[test]
fn python_methods_and_loop_controls_work() {
    let source = "{% for w in ' a b </t> c'.split('</t>')[-1].lstrip().upper() ~ 'x,y'.split(',')[::-1][0] %}{% if w == 'C' %}{% continue %}{% endif %}{{ w }}{% break %}{% endfor %}\
        {{ {'a': 1}.get('b', 2) }}{% for k, v in {'k': 'v'}.items() %}{{ k ~ v }}{% endfor %}{{ dict(a=1)['a'] }}";
    assert_eq!(text(source, json!({})), "y2kv1");
}

#[test]
fn source_that_is_no_template_is_refused_with_the_place() {
    let error = ChatTemplate::compile("{% for %}", SystemTime::now).unwrap_err();
    assert!(matches!(error, TemplateError::Syntax(_)), "{error}");
    let error =
        ChatTemplate::compile(&"x".repeat(MAX_SOURCE_BYTES + 1), SystemTime::now).unwrap_err();
    assert!(matches!(error, TemplateError::SourceTooLarge(_)), "{error}");
}

#[test]
fn output_beyond_the_limit_is_refused() {
    let context = Map::from_iter([("x".to_owned(), json!("y".repeat(MAX_OUTPUT_BYTES / 2 + 1)))]);
    assert!(compile("{{ x }}").render(&context).is_ok());
    assert!(matches!(
        compile("{{ x }}{{ x }}").render(&context),
        Err(TemplateError::TooMuchWork)
    ));
}
