//! The small parquet tables: as labels and evaluations are read, and as `s4l-inspect` reads any.
#![no_main]

mod input;

use s4l::inspect;
use s4l::tables::table;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = input::folder(&[("table.parquet", bytes)]).join("table.parquet");
    if let Ok(table) = table::read(&path, "s4l-eval") {
        for field in table.batch.schema().fields() {
            let name = field.name();
            let _ = table.strings(name);
            let _ = table.ints(name);
            let _ = table.floats(name);
            let _ = table.doubles(name);
            let _ = table.bools(name);
            let _ = table.float_lists(name);
        }
    }
    let _ = inspect::parquet::describe(&path);
    let _ = inspect::parquet::verify(&path);
});
