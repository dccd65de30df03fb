use serde_json::json;

use super::*;

fn line(text: &str, document: usize, path: &str) -> usize {
    Source::new("x".into(), text.into()).line(document, &FieldPath::of(path), false)
}

#[test]
fn reads_every_document_and_keeps_positions() {
    let documents = parse("# head\n---\na: 1\n---\n---\nb: [x, 2.5, true, null]\n").unwrap();
    let values: Vec<&Value> = documents.iter().map(|d| &d.value).collect();
    assert_eq!(
        values,
        [
            &json!({"a": 1}),
            &json!(null),
            &json!({"b": ["x", 2.5, true, null]})
        ]
    );
    let text = "# head\n---\na: 1\n---\n---\nb:\n  c: 1\n";
    assert_eq!(
        (line(text, 0, "a"), line(text, 2, "b"), line(text, 2, "b.c")),
        (3, 6, 7)
    );
    assert_eq!(line(text, 2, "b.missing"), 6, "the nearest parent");
}

#[test]
fn points_at_items_and_at_the_second_of_two_equal_keys() {
    let text = "a:\n- x: 1\n- x: 2\n  y: 3\n  x: 4\n";
    let source = Source::new("f".into(), text.into());
    let item = FieldPath::of("a").index(1);
    assert_eq!(source.line(0, &item, false), 3);
    assert_eq!(source.line(0, &item.key("x"), false), 3);
    assert_eq!(source.line(0, &item.key("x"), true), 5);
    let duplicates = parse(text).unwrap().remove(0).duplicates;
    assert_eq!(duplicates, [item.key("x")]);
}

#[test]
fn tells_the_line_of_a_syntax_error_once() {
    let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
    assert!(error.line >= 2, "{error:?}");
    assert!(!error.message.contains("at line"), "{error:?}");
}

#[test]
fn merges_anchors_without_overriding() {
    let text = "base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\n";
    assert_eq!(
        parse(text).unwrap()[0].value["use"],
        json!({"b": 3, "a": 1})
    );
}

#[test]
fn survives_bombs_and_deep_nesting() {
    let deep = "[".repeat(5_000);
    assert!(parse(&deep).is_err());
    Lines::of(&deep);
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let all = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{all}]\n"));
    }
    assert!(parse(&bomb).is_err());
}
