//! The binary files of CIFAR-10, CIFAR-100 and STL-10: the first byte says which, the second how many
//! of the others are the names of the classes, the third how many labels of STL-10 follow.
#![no_main]

mod input;

use s4l::input::Format;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [kind, names, labels, rest @ ..] = bytes else {
        return;
    };
    let (names, rest) = rest.split_at(usize::from(*names).min(rest.len()));
    let (labels, images) = rest.split_at(usize::from(*labels).min(rest.len()));
    let cifar_10 = [("batches.meta.txt", names), ("data_batch_1.bin", images)];
    let cifar_100 = [("fine_label_names.txt", names), ("train.bin", images)];
    let stl_10 = [
        ("class_names.txt", names),
        ("train_y.bin", labels),
        ("train_X.bin", images),
    ];
    match kind % 3 {
        0 => input::read(&cifar_10, "", Format::Cifar, None),
        1 => input::read(&cifar_100, "", Format::Cifar, None),
        _ => input::read(&stl_10, "", Format::Stl10, None),
    }
});
