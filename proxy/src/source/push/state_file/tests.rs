use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header {
        namespaces: vec!["a".into(), "b".into()],
        control: "control-0".into(),
        generation: 7,
    }
}

fn stored(value: &[u8]) -> Stored {
    Stored {
        version: "v".into(),
        value: value.to_vec(),
    }
}

fn bytes() -> Vec<u8> {
    let (one, two) = (stored(b"one"), stored(&[0; 300]));
    let resources = [
        (ResourceType::ModelServer, "a/s", &one),
        (ResourceType::Endpoint, "a/p:1", &two),
    ];
    encode(&header(), resources.into_iter())
}

#[test]
fn what_was_written_is_read() {
    let (read, resources) = decode(&bytes()).unwrap();
    assert_eq!(read, header());
    assert_eq!(resources.len(), 2);
    assert_eq!(
        (resources[0].kind, &*resources[0].name),
        (ResourceType::ModelServer, "a/s")
    );
    assert_eq!(
        (&*resources[1].version, resources[1].value.len()),
        ("v", 300)
    );
}

#[test]
fn a_file_takes_its_name_when_it_is_whole_and_is_for_nobody_elses_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let namespaces = header().namespaces;
    assert!(load(&path, &namespaces).unwrap().is_none());
    save(&path, b"old").unwrap();
    save(&path, &bytes()).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    assert_eq!(load(&path, &namespaces).unwrap().unwrap().0, header());
    let missing = folder.path().join("none/state");
    assert!(matches!(save(&missing, b""), Err(StateError::File { .. })));
}

#[test]
fn a_file_for_other_namespaces_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    save(&path, &bytes()).unwrap();
    let error = load(&path, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it was written for other namespaces (a, b)"
    );
}

#[test]
fn a_newer_file_says_so_even_if_its_sum_is_made_another_way() {
    let mut newer = bytes();
    newer[8] = 2;
    let error = decode(&newer).unwrap_err();
    assert_eq!(error.to_string(), "it is of format 2, this program reads 1");
}

#[test]
fn a_secret_is_not_read_even_if_one_is_there() {
    let secret = stored(b"hunter2");
    let resources = [(ResourceType::Secret, "a/s", &secret)];
    let bytes = encode(&header(), resources.into_iter());
    assert!(matches!(decode(&bytes), Err(StateError::Damaged)));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = bytes();
    for length in 0..whole.len() {
        assert!(decode(&whole[..length]).is_err(), "{length}");
    }
    assert!(decode(&[whole.as_slice(), &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn a_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = bytes();
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn lies_under_a_right_sum_never_panic(mut body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        bytes.append(&mut body);
        let sum = xxh3_64(&bytes);
        bytes.extend(sum.to_le_bytes());
        let _ = decode(&bytes);
    }
}
