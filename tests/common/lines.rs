//! A child's output, gathered line by line as it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};

/// The lines of a pipe so far.
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Reads a pipe to its end, in a thread that ends with it.
    pub fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Arc::new(Mutex::new(vec![]));
        let gathered = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                gathered.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Lines(lines)
    }

    /// How many there are so far.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// All of them so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
