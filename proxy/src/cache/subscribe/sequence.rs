//! What a batch's number means: next, known already, out of a hole, or from a publisher that began anew.
//!
//! Pure: no sockets, no clock. A publisher numbers its batches from 0 within its process and sends them in order over
//! TCP, so a live number that does not rise is a restart; one that jumps is a hole, which a replay may fill. A replay
//! begins at the last batch applied, whose fingerprint tells whether the publisher is still the same process: one that
//! was restarted while nobody listened may have reached any number since.

/// What to do with a live batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Live {
    /// Apply it.
    Next,
    /// Applied already, by a replay.
    Known,
    /// Batches before it are missing: replay, then ask [`Sequence::resume`].
    Gap,
    /// The publisher began anew: forget all it said, then ask again.
    Restart,
}

/// What to do with a live batch after a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// The hole is filled: apply it.
    Next,
    /// The replay had it too.
    Known,
    /// The hole stays: forget all, then apply it.
    Hole,
}

/// What to do with a replayed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replayed {
    /// Apply it.
    Next,
    /// Known already.
    Known,
    /// The publisher has forgotten what lies before: forget all, then apply it.
    Hole,
    /// Another process than the one followed so far: forget all, then replay from the start.
    Foreign,
}

/// Where a publisher's stream has been read to.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// Number of the batch to come.
    next: u64,
    /// Fingerprint of the one before it, unless a hole or nothing lies there.
    last: Option<u64>,
    /// Number of the last batch that came live: the next live one must be larger.
    last_live: Option<u64>,
    /// A replay is to repeat the last batch first.
    expects_overlap: bool,
    /// Something of the publisher's history is missing.
    incomplete: bool,
}

impl Sequence {
    /// Whether all is known that the publisher's cache holds.
    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete
    }

    /// Whether anything of the publisher has been read.
    pub(super) fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// A batch's meaning, which came live.
    pub(super) fn live(&mut self, number: u64) -> Live {
        if self.last_live.is_some_and(|last| number <= last) {
            *self = Self::default();
            return Live::Restart;
        }
        match number.cmp(&self.next) {
            std::cmp::Ordering::Equal => self.live_is(number, Live::Next),
            std::cmp::Ordering::Less => self.live_is(number, Live::Known),
            std::cmp::Ordering::Greater => Live::Gap,
        }
    }

    /// The same, of a batch that [`Live::Gap`] was said of, after the replay or without one.
    pub(super) fn resume(&mut self, number: u64) -> Resume {
        match number.cmp(&self.next) {
            std::cmp::Ordering::Equal => self.live_is(number, Resume::Next),
            std::cmp::Ordering::Less => self.live_is(number, Resume::Known),
            std::cmp::Ordering::Greater => {
                self.incomplete = true;
                self.live_is(number, Resume::Hole)
            }
        }
    }

    fn live_is<T>(&mut self, number: u64, meaning: T) -> T {
        self.last_live = Some(number);
        meaning
    }

    /// A batch was applied, or given up as unreadable.
    pub(super) fn advance(&mut self, number: u64, fingerprint: u64) {
        self.next = number.saturating_add(1);
        self.last = Some(fingerprint);
    }

    /// First number to ask a replay for.
    pub(super) fn replay_from(&mut self) -> u64 {
        self.expects_overlap = self.last.is_some();
        match self.last {
            Some(_) => self.next - 1,
            None => self.next,
        }
    }

    /// A batch's meaning, which a replay brought.
    pub(super) fn replayed(&mut self, number: u64, fingerprint: u64) -> Replayed {
        if self.expects_overlap && number.saturating_add(1) >= self.next {
            self.expects_overlap = false;
            if number >= self.next {
                // Forgotten just up to here, or another process: nothing tells which.
                return self.replay_hole();
            }
            if self.last != Some(fingerprint) {
                return self.foreign();
            }
        }
        match number.cmp(&self.next) {
            std::cmp::Ordering::Equal => Replayed::Next,
            std::cmp::Ordering::Less => Replayed::Known,
            std::cmp::Ordering::Greater => self.replay_hole(),
        }
    }

    fn replay_hole(&mut self) -> Replayed {
        self.incomplete = true;
        Replayed::Hole
    }

    /// Whether batches are missing before one that came in the middle of a replay.
    pub(super) fn is_ahead(&self, number: u64) -> bool {
        !self.expects_overlap && number > self.next
    }

    /// Number of the batch to come.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The replay came to its end. True when the publisher does not know its own last batch: it is another process.
    pub(super) fn replay_ended(&mut self) -> bool {
        let foreign = std::mem::take(&mut self.expects_overlap);
        if foreign {
            self.foreign();
        }
        foreign
    }

    fn foreign(&mut self) -> Replayed {
        *self = Self::default();
        Replayed::Foreign
    }

    /// What a batch said is lost.
    pub(super) fn set_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// The publisher's cache is empty: all is known of it.
    pub(super) fn set_complete(&mut self) {
        self.incomplete = false;
    }
}

#[cfg(test)]
mod tests;
