//! The keys of a split in one buffer: large sets have millions of images.

/// Keys in row order.
#[derive(Debug, Default)]
pub struct Keys {
    text: String,
    ends: Vec<usize>,
}

impl Keys {
    pub fn push(&mut self, key: &str) {
        self.text.push_str(key);
        self.ends.push(self.text.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The key of a row below `len`.
    pub fn get(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[row]]
    }

    /// Rows sorted by key, or two rows with the same key.
    pub fn in_order(&self) -> Result<Vec<u32>, [u32; 2]> {
        let key = |row: u32| self.get(row as usize);
        let mut rows: Vec<u32> = (0..self.len() as u32).collect();
        // A stable sort is fast if the keys are already sorted, as they usually are.
        rows.sort_by(|&a, &b| key(a).cmp(key(b)));
        match rows.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
            Some(pair) => Err([pair[0], pair[1]]),
            None => Ok(rows),
        }
    }
}
