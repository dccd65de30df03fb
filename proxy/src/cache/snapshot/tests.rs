use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn endpoint(address: &str, blocks: u64) -> EndpointSnapshot {
    EndpointSnapshot {
        address: address.into(),
        blocks: (1..=blocks).map(|block| (block, 64)).collect(),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        taken: at(1000),
        pools: vec![
            PoolSnapshot {
                name: "default/llama/bytes".into(),
                endpoints: vec![endpoint("10.0.0.1:8000", 100), endpoint("10.0.0.2:8000", 3)],
            },
            PoolSnapshot {
                name: "empty".into(),
                endpoints: Vec::new(),
            },
        ],
    }
}

fn decoded(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    decode(bytes, at(1100), MAX_AGE)
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(decoded(&encode(&snapshot(), MIB)).unwrap(), snapshot());
}

#[test]
fn a_limit_cuts_the_longest_lists() {
    let whole = encode(&snapshot(), MIB).len();
    let bytes = encode(&snapshot(), whole - 500);
    assert!(bytes.len() <= whole - 500);
    let endpoints = &decoded(&bytes).unwrap().pools[0].endpoints;
    assert_eq!(endpoints[0].blocks, endpoint("", 50).blocks);
    assert_eq!(endpoints[1].blocks.len(), 3);
    for limit in 0..whole {
        let bytes = encode(&snapshot(), limit);
        assert!(bytes.len() <= limit.max(32));
        assert!(decoded(&bytes).is_ok());
    }
}

#[test]
fn age_is_bounded() {
    let bytes = encode(&snapshot(), MIB);
    let read = |now| decode(&bytes, at(now), MAX_AGE);
    assert!(read(1600).is_ok());
    assert!(matches!(read(1601), Err(SnapshotError::Stale { .. })));
    assert!(matches!(read(999), Err(SnapshotError::FromTheFuture)));
}

#[test]
fn other_versions_and_damage_are_told_apart() {
    let mut newer = encode(&snapshot(), MIB);
    newer[8] = 2;
    assert!(matches!(
        decoded(&newer),
        Err(SnapshotError::Version { found: 2 })
    ));
    let bytes = encode(&snapshot(), MIB);
    for at in (0..8).chain(12..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(matches!(decoded(&damaged), Err(SnapshotError::Damaged)));
    }
    for length in 0..bytes.len() {
        assert!(decoded(&bytes[..length]).is_err());
    }
}

#[test]
fn files_come_and_go_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.snapshot");
    let read = |limit| load(&path, limit, at(1100), MAX_AGE);
    assert!(read(MIB).unwrap().is_none());
    save(&path, &snapshot(), MIB).unwrap();
    save(&path, &snapshot(), MIB).unwrap();
    assert_eq!(read(MIB).unwrap(), Some(snapshot()));
    assert!(matches!(
        read(100),
        Err(SnapshotError::TooLarge { limit: 100 })
    ));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/such/folder");
    assert!(matches!(
        save(&nowhere, &snapshot(), MIB),
        Err(SnapshotError::File { .. })
    ));
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(body);
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let _ = decoded(&bytes);
    }
}
