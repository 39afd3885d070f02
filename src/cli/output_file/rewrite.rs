//! A file that is written more than once: each time whole.

use super::{CliError, InPlace, OutputFile, State, Target};
use std::mem;

impl OutputFile {
    /// Gives the file this content; the next call gives it another one. The content of a stream is written behind the last.
    ///
    /// # Errors
    /// The file cannot be written. A later call may succeed.
    pub(crate) fn rewrite(&mut self, content: &[u8]) -> Result<(), CliError> {
        let written = match mem::replace(&mut self.state, State::Failed) {
            // The descriptor that was opened at the start serves again: inside the sandbox there is no other.
            State::Checked(Target::WrittenInPlace(file)) => {
                InPlace::new(file).and_then(|mut place| {
                    let written = place.write(content).and_then(|()| place.finish());
                    self.state = State::Checked(Target::WrittenInPlace(place.file));
                    written
                })
            }
            State::Checked(Target::Stream(out)) => {
                let written = out.write_within(content, self.purpose.write_timeout());
                self.state = State::Checked(Target::Stream(out));
                written
            }
            state => {
                self.state = state;
                let mut file = Self::open(self.flag, &self.path, self.purpose)?;
                file.write(content)?;
                return file.finish();
            }
        };
        written.map_err(|error| self.failure(&error))
    }
}
