//! The file system of a simulated disk, as raft-engine wants it. Flat: a file is known by its name.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use rand::Rng;

use super::fault::Operation;
use super::file::{File, SECTOR_BYTES};
use super::{Shared, State, lock, lost_power, no_space};

/// A disk's files, for one process of the node.
pub struct SimFs {
    disk: Arc<Shared>,
    generation: u64,
}

/// An open file.
pub struct SimHandle {
    disk: Arc<Shared>,
    generation: u64,
    file: Arc<Mutex<File>>,
    writable: bool,
}

/// Reads an open file from its own position.
pub struct SimReader {
    handle: Arc<SimHandle>,
    at: usize,
}

/// Writes an open file at its own position.
pub struct SimWriter {
    handle: Arc<SimHandle>,
    at: usize,
}

impl SimFs {
    pub(super) fn new(disk: Arc<Shared>, generation: u64) -> SimFs {
        SimFs { disk, generation }
    }

    fn handle(&self, file: &Arc<Mutex<File>>, permission: Permission) -> SimHandle {
        SimHandle {
            disk: self.disk.clone(),
            generation: self.generation,
            file: file.clone(),
            writable: permission == Permission::ReadWrite,
        }
    }
}

impl FileSystem for SimFs {
    type Handle = SimHandle;
    type Reader = SimReader;
    type Writer = SimWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<SimHandle> {
        let mut state = self.disk.lock();
        state.check_alive(self.generation)?;
        create_placeholder(path.as_ref())?;
        let name = name(path.as_ref())?;
        state.note("create", 0, name.as_bytes());
        let file = state.files.entry(name).or_default();
        Ok(self.handle(file, Permission::ReadWrite))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<SimHandle> {
        let state = self.disk.lock();
        state.check_alive(self.generation)?;
        let file = state.files.get(&name(path.as_ref())?);
        Ok(self.handle(file.ok_or(io::ErrorKind::NotFound)?, permission))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.check_alive(self.generation)?;
        let name = name(path.as_ref())?;
        state.files.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        state.note("delete", 0, name.as_bytes());
        std::fs::remove_file(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.check_alive(self.generation)?;
        let to_name = name(to.as_ref())?;
        let file = state.files.remove(&name(from.as_ref())?).ok_or(io::ErrorKind::NotFound)?;
        state.note("rename", 0, to_name.as_bytes());
        state.files.insert(to_name, file);
        std::fs::rename(from, to)
    }

    fn new_reader(&self, handle: Arc<SimHandle>) -> io::Result<SimReader> {
        Ok(SimReader { handle, at: 0 })
    }

    fn new_writer(&self, handle: Arc<SimHandle>) -> io::Result<SimWriter> {
        Ok(SimWriter { handle, at: 0 })
    }
}

impl SimHandle {
    fn set_len(&self, len: usize) -> io::Result<()> {
        let state = self.disk.lock();
        state.check_alive(self.generation)?;
        if !self.writable {
            // As ftruncate does.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        state.note("length", len, &[]);
        lock(&self.file).set_len(len);
        Ok(())
    }

    /// Has zeros follow up to a length, if there is room.
    fn grow(&self, len: usize) -> io::Result<()> {
        let state = self.disk.lock();
        state.check_alive(self.generation)?;
        let more = len.saturating_sub(lock(&self.file).len()) as u64;
        if state.room_for(more) < more {
            return Err(no_space());
        }
        if more > 0 {
            state.note("length", len, &[]);
            lock(&self.file).set_len(len);
        }
        Ok(())
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.writes += 1;
        lock(&self.file).last_write = state.writes;
        let power_cut = match state.admit(self.generation, Operation::Write) {
            Ok(power_cut) => power_cut,
            Err(e) => {
                if state.check_alive(self.generation).is_ok() {
                    let end = at + state.rng.random_range(0..=bytes.len());
                    let part = (end - end % SECTOR_BYTES).saturating_sub(at);
                    self.write_what_fits(&state, at, &bytes[..part]);
                }
                return Err(e);
            }
        };
        let whole = self.write_what_fits(&state, at, bytes);
        if power_cut {
            state.lose_power();
            return Err(lost_power());
        }
        if whole { Ok(()) } else { Err(no_space()) }
    }

    /// Whether everything fitted.
    fn write_what_fits(&self, state: &State, at: usize, bytes: &[u8]) -> bool {
        let more = (at + bytes.len()).saturating_sub(lock(&self.file).len());
        let missing = more - state.room_for(more as u64) as usize;
        let fits = bytes.len().saturating_sub(missing);
        if fits > 0 {
            state.note("write", at, &bytes[..fits]);
            lock(&self.file).write(at, &bytes[..fits]);
        }
        fits == bytes.len()
    }
}

impl Handle for SimHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.set_len(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.disk.lock().check_alive(self.generation)?;
        Ok(lock(&self.file).len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        // A process that panics is as good as dead; a second panic would end the simulator.
        if state.check_alive(self.generation).is_err() || std::thread::panicking() {
            return Ok(());
        }
        if state.admit(self.generation, Operation::Sync)? {
            state.lose_power();
            return Err(lost_power());
        }
        state.note("sync", 0, &[]);
        if !state.faults.lying {
            lock(&self.file).sync();
        }
        Ok(())
    }
}

impl Read for SimReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.handle.disk.lock();
        if state.admit(self.handle.generation, Operation::Read)? {
            state.lose_power();
            return Err(lost_power());
        }
        drop(state);
        let read = lock(&self.handle.file).read(self.at, into);
        self.at += read;
        Ok(read)
    }
}

impl Seek for SimReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        seek(&mut self.at, &self.handle, to)
    }
}

impl Write for SimWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.write(self.at, bytes)?;
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        seek(&mut self.at, &self.handle, to)
    }
}

impl WriteExt for SimWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.handle.set_len(offset)?;
        self.at = offset;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.handle.grow(offset + size)
    }
}

fn seek(at: &mut usize, handle: &SimHandle, to: SeekFrom) -> io::Result<u64> {
    let moved = match to {
        SeekFrom::Start(offset) => usize::try_from(offset).ok(),
        SeekFrom::Current(by) => at.checked_add_signed(by as isize),
        SeekFrom::End(by) => lock(&handle.file).len().checked_add_signed(by as isize),
    };
    *at = moved.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(*at as u64)
}

/// Makes a file's name show in the real directory.
pub(super) fn create_placeholder(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
}

fn name(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.ok_or(io::ErrorKind::InvalidInput)?.to_owned())
}
