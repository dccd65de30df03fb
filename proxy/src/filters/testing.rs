//! A scripted filter for the tests of this room.
