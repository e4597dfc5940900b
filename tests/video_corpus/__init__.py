"""A generated corpus of awkward videos: seeded, without downloads, every case a few kilobytes."""
