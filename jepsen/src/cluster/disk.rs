//! A file system of its own for each node, in a file: it can be cut off from power, filled and
//! frozen without harm to anything else.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::made::{Made, Thing, run};

/// An ext4 in a file, mounted.
#[derive(Debug)]
pub struct Disk {
    /// The file.
    pub image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Disk {
    /// Makes and mounts one of so many bytes; the file is sparse.
    ///
    /// # Errors
    ///
    /// What a tool said.
    pub fn make(made: &Made, directory: &Path, name: &str, bytes: u64) -> Result<Disk, String> {
        let disk =
            Disk { image: directory.join(format!("{name}.img")), mount: directory.join(name) };
        let io = |error: io::Error| format!("{}: {error}", disk.image.display());
        made.note(Thing::File(disk.image.clone())).map_err(io)?;
        File::create_new(&disk.image).and_then(|file| file.set_len(bytes)).map_err(io)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image))?;
        fs::create_dir(&disk.mount).map_err(io)?;
        made.note(Thing::Mount(disk.mount.clone())).map_err(io)?;
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it.
    ///
    /// # Errors
    ///
    /// What `mount` said.
    pub fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        run(command.args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.mount))
    }
}
