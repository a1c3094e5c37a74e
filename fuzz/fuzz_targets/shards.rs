//! The memory-mapped reader of shards: the first byte says whether they hold pixels of 2 x 2, the next
//! four how many images `dataset.json` promises.
#![no_main]

mod input;

use s4l::shards::Shards;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [pixels, a, b, c, d, file @ ..] = bytes else {
        return;
    };
    let images = u32::from_le_bytes([*a, *b, *c, *d]);
    let shape = if pixels % 2 == 1 { "[2,2,1]" } else { "null" };
    let dataset = format!(
        r#"{{"format":1,"classes":["a","b"],"shape":{shape},"lineage":{{}},
            "splits":{{"train":{{"images":{images},"files":1,"content":""}}}}}}"#
    );
    let manifest = format!("{}  dataset.json\n", blake3::hash(dataset.as_bytes()));
    let folder = input::folder(&[
        ("dataset.json", dataset.as_bytes()),
        ("MANIFEST.b3", manifest.as_bytes()),
        ("train-00000-of-00001.parquet", file),
    ]);
    let Ok(split) = Shards::open(&folder).unwrap().split("train") else {
        return;
    };
    let _ = split.labels();
    let _ = split.hashes();
    for row in 0..split.len() {
        split.prefetch(row);
        let _ = split.stored(row);
        split.row(split.key(row)).unwrap();
    }
});
