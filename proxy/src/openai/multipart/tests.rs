//! Forms as clients write them, broken ones, and garbage.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const TYPE: &str = "multipart/form-data; boundary=XyZ";

fn form(parts: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (head, content) in parts {
        body.push_str(&format!("--XyZ\r\n{head}\r\n\r\n{content}\r\n"));
    }
    body + "--XyZ--\r\n"
}

fn field(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"")
}

fn error(content_type: &str, body: &str) -> MultipartError {
    scan_form(content_type, body.as_bytes()).expect_err("the form must be refused")
}

#[test]
fn the_model_is_found_among_files_and_renamed() {
    let file = "content-disposition: form-data; filename=\"name=model; x\"; name=file\r\nContent-Type: audio/wav";
    let body = form(&[
        (file, "RIFF\r\n--Xy\r\n\r\nname=\"model\"\r\n\r\nno"),
        (&field("model"), "whisper-1"),
        (&field("stream"), "True"),
        (&field("prompt"), ""),
    ]);
    let facts = scan_form(TYPE, body.as_bytes()).expect("a form");
    assert_eq!(facts.model.value, "whisper-1");
    assert_eq!(&body[facts.model.span.clone()], "whisper-1");
    assert!(facts.stream);
    let mut edits = Edits::new();
    facts
        .rename_model(&mut edits, "large")
        .expect("a plain name");
    let edited = edits.apply(&Bytes::from(body.clone()));
    assert_eq!(edited, body.replace("whisper-1", "large"));
    assert_eq!(
        facts.rename_model(&mut edits, "a\r\n--XyZ--"),
        Err(MultipartError::NameHoldsBoundary)
    );
}

#[test]
fn boundaries_may_be_quoted_and_follow_a_preamble() {
    let body = format!("preamble\r\n{}", form(&[(&field("model"), "m")]));
    for content_type in [
        "Multipart/Form-Data;boundary=\"XyZ\"",
        "multipart/form-data; charset=utf-8; Boundary=XyZ ; a",
        "multipart/form-data; boundary=\"Xy\\Z\"",
    ] {
        assert!(
            scan_form(content_type, body.as_bytes()).is_ok(),
            "{content_type}"
        );
    }
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    for content_type in [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=XyZ",
        &long,
        "multipart/form-data; boundary=a; boundary=XyZ",
        "multipart/form-data; boundary=\"a\r\n\"",
    ] {
        assert_eq!(
            error(content_type, &body),
            MultipartError::NoBoundary,
            "{content_type}"
        );
    }
}

#[test]
fn forms_without_one_clear_model_are_refused() {
    let model = field("model");
    let refused = |parts: &[(&str, &str)]| error(TYPE, &form(parts));
    assert_eq!(refused(&[(&field("a"), "b")]), MultipartError::NoModel);
    assert_eq!(refused(&[(&model, "")]), MultipartError::NoModel);
    assert_eq!(
        refused(&[(&format!("{model}; filename=x"), "m")]),
        MultipartError::NoModel
    );
    assert!(matches!(
        refused(&[(&model, "a"), (&model, "b")]),
        MultipartError::Duplicate { field: "model", .. }
    ));
    assert!(matches!(
        refused(&[(&model, &"x".repeat(5000))]),
        MultipartError::BadValue { field: "model", .. }
    ));
    assert!(matches!(
        refused(&[(&format!("{model}; name=b"), "m")]),
        MultipartError::Malformed { .. }
    ));
    assert!(matches!(
        refused(&[(&format!("{}\r\n{model}", field("a")), "m")]),
        MultipartError::Malformed { .. }
    ));
    assert!(matches!(
        refused(&[(&model, ""), (&model, "b")]),
        MultipartError::Duplicate { .. }
    ));
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("A: b", ""), MAX_PARTS + 1).collect();
    assert_eq!(
        refused(&many),
        MultipartError::TooManyParts { limit: MAX_PARTS }
    );
}

#[test]
fn every_truncation_is_refused() {
    let body = form(&[(&field("model"), "m"), (&field("file"), "data")]);
    for length in 0..body.len() - 4 {
        let error = error(TYPE, &body[..length]);
        assert!(
            matches!(error, MultipartError::Malformed { .. }),
            "{length}: {error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn no_form_makes_it_panic(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                "--XyZ", "--", "\r\n", "\r\n\r\n", "Content-Disposition: form-data; name=\"model\"", "\"", ";", "é",
                "name", "=", "a", ":", " ",
            ]),
            0..30,
        ),
        content_type in "multipart/form-data; ?[a-z;=\" \\\\]{0,20}",
    ) {
        let body = pieces.concat();
        let _ = scan_form(TYPE, body.as_bytes());
        let _ = scan_form(&content_type, body.as_bytes());
    }
}
