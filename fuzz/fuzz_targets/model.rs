//! Model folders of ours and of timm, and checkpoints: the first byte says which, the next two how many
//! of the others are `config.json`.
#![no_main]

mod input;

use s4l::lineage::Lineage;
use s4l::inspect;
use s4l::model::folder::Model;
use s4l::network::weights::Weights;
use s4l::settings::Settings;
use s4l::train::checkpoint;
use s4l::train::identity::Identity;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [kind, a, b, rest @ ..] = bytes else {
        return;
    };
    if kind % 2 == 1 {
        let folder = input::folder(&[]);
        let file = checkpoint::file(&folder);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, rest).unwrap();
        let lineage = Lineage::without_settings("s4l-pretrain");
        let identity = Identity::new(&Settings::default(), &lineage, "known").unwrap();
        let _ = checkpoint::load(&folder, &identity, &Weights::default(), true);
        checkpoint::remove(&folder).unwrap();
        return;
    }
    let config = usize::from(u16::from_le_bytes([*a, *b])).min(rest.len());
    let (config, weights) = rest.split_at(config);
    let folder = input::folder(&[("config.json", config), ("model.safetensors", weights)]);
    let _ = Model::open(&folder);
    let _ = inspect::folder::describe_model(&folder);
    let _ = inspect::folder::verify_model(&folder);
});
