//! Writes what each target makes as samples, and its seeds, into `FOLDER/TARGET/`: where a fuzzer with coverage starts.

use std::fs;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("the folder to write to"));
    let seeds =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder holds this one").join("seeds");
    for target in fuzz_targets::TARGETS {
        let own = folder.join(target.name);
        fs::create_dir_all(&own)?;
        for (number, sample) in (target.samples)().iter().enumerate() {
            fs::write(own.join(format!("sample-{number}")), sample)?;
        }
        let Ok(stored) = seeds.join(target.name).read_dir() else { continue };
        for seed in stored {
            let seed = seed?;
            fs::copy(seed.path(), own.join(Path::new("seed").with_extension(seed.file_name())))?;
        }
    }
    Ok(())
}
