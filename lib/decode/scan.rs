//! Replaces libjpeg's entropy decoder by `huffman` for images with one Huffman-coded scan. Gives up on
//! invalid data, and libjpeg then decodes the image again and reports the error.

use super::huffman::{Bits, HuffmanTable, PairEntries};
use mozjpeg_sys::{JHUFF_TBL, boolean, c_int, c_uint, jpeg_decompress_struct};
use std::ptr::null;

/// Blocks of an MCU.
const MAX_BLOCKS: usize = 10;
/// Huffman tables of a kind, and components.
const MAX_TABLES: usize = 4;

type Block = [i16; 64];

type DecodeMcu =
    unsafe extern "C-unwind" fn(&mut jpeg_decompress_struct, *const *mut Block) -> boolean;

unsafe extern "C-unwind" {
    /// In scan.c.
    fn s4l_replace_entropy_decoder(
        state: &mut jpeg_decompress_struct,
        layout: &mut ScanLayout,
        decode_mcu: DecodeMcu,
    ) -> c_int;
}

/// `struct block` of scan.c.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BlockLayout {
    component: c_uint,
    dc_table: c_uint,
    ac_table: c_uint,
}

/// `struct layout` of scan.c.
#[repr(C)]
struct ScanLayout {
    dc_tables: [*const JHUFF_TBL; MAX_TABLES],
    ac_tables: [*const JHUFF_TBL; MAX_TABLES],
    blocks: [BlockLayout; MAX_BLOCKS],
    blocks_in_mcu: c_uint,
    mcus_in_row: c_uint,
    first: c_uint,
    last: c_uint,
    restart_interval: c_uint,
}

/// The entropy decoder, reused for all images.
pub struct Scan {
    layout: ScanLayout,
    dc_tables: [HuffmanTable; MAX_TABLES],
    ac_tables: [HuffmanTable; MAX_TABLES],
    ac_pairs: [PairEntries; MAX_TABLES],
    /// The data of the file, from the first byte of the scan.
    data: *const [u8],
    bits: Bits,
    /// The last DC coefficient of each component.
    dc: [i32; MAX_TABLES],
    /// The column of the next MCU in its row.
    column: c_uint,
    mcus_to_restart: c_uint,
    /// Number of the next restart marker.
    number: u8,
    gave_up: bool,
}

impl Scan {
    pub fn new() -> Scan {
        Scan {
            layout: ScanLayout {
                dc_tables: [null(); MAX_TABLES],
                ac_tables: [null(); MAX_TABLES],
                blocks: [BlockLayout::default(); MAX_BLOCKS],
                blocks_in_mcu: 0,
                mcus_in_row: 0,
                first: 0,
                last: 0,
                restart_interval: 0,
            },
            dc_tables: std::array::from_fn(|_| HuffmanTable::new()),
            ac_tables: std::array::from_fn(|_| HuffmanTable::new()),
            ac_pairs: std::array::from_fn(|_| HuffmanTable::new().pairs()),
            data: &[],
            bits: Bits::default(),
            dc: [0; MAX_TABLES],
            column: 0,
            mcus_to_restart: 0,
            number: 0,
            gave_up: false,
        }
    }

    /// Takes over the entropy decoding of an image, if it has one Huffman-coded scan.
    ///
    /// # Safety
    /// Decompression from memory has started, the columns are chosen, no row was read. The memory and this
    /// scan stay in place until libjpeg has finished the image, and nothing else uses the scan.
    pub unsafe fn take_over(&mut self, state: &mut jpeg_decompress_struct) {
        // SAFETY: the decompressor has started.
        if unsafe { s4l_replace_entropy_decoder(state, &mut self.layout, decode_mcu) } == 0 {
            return;
        }
        for block in &self.layout.blocks[..self.layout.blocks_in_mcu as usize] {
            let (dc, ac) = (block.dc_table as usize, block.ac_table as usize);
            // SAFETY: libjpeg has checked the tables of all blocks.
            unsafe {
                let (dc_table, ac_table) =
                    (&*self.layout.dc_tables[dc], &*self.layout.ac_tables[ac]);
                self.dc_tables[dc].set(&dc_table.bits, &dc_table.huffval);
                if self.ac_tables[ac].set(&ac_table.bits, &ac_table.huffval) {
                    self.ac_pairs[ac] = self.ac_tables[ac].pairs();
                }
            }
        }
        // SAFETY: the source of the decompressor is in memory.
        let source = unsafe { &*state.src };
        self.data = std::ptr::slice_from_raw_parts(source.next_input_byte, source.bytes_in_buffer);
        self.bits = Bits::default();
        self.dc = [0; MAX_TABLES];
        self.column = 0;
        self.mcus_to_restart = self.layout.restart_interval;
        self.number = 0;
        state.common.client_data = (&raw mut *self).cast();
    }

    /// Whether the image read since the last call must be read again by libjpeg's own decoder.
    pub fn gave_up(&mut self) -> bool {
        std::mem::take(&mut self.gave_up)
    }

    /// Decodes an MCU into zeroed blocks, or only parses it.
    fn mcu(&mut self, data: &[u8], blocks: Option<&[*mut Block]>) -> Option<()> {
        if self.layout.restart_interval > 0 {
            if self.mcus_to_restart == 0 {
                self.bits = self.bits.after_marker(data, 0xd0 + self.number)?;
                self.dc = [0; MAX_TABLES];
                self.mcus_to_restart = self.layout.restart_interval;
                self.number = (self.number + 1) % 8;
            }
            self.mcus_to_restart -= 1;
        }
        let here = (self.layout.first..=self.layout.last).contains(&self.column);
        self.column = (self.column + 1) % self.layout.mcus_in_row;
        let blocks = blocks.filter(|_| here);
        let mut bits = self.bits;
        let layouts = &self.layout.blocks[..self.layout.blocks_in_mcu as usize];
        for (i, block) in layouts.iter().enumerate() {
            let dc = &mut self.dc[block.component as usize];
            let dc_table = &self.dc_tables[block.dc_table as usize];
            let ac = block.ac_table as usize;
            let ac_table = (&self.ac_tables[ac], &self.ac_pairs[ac]);
            *dc = dc.wrapping_add(bits.dc(data, dc_table)?);
            match blocks {
                // SAFETY: libjpeg passes the blocks of the MCU.
                Some(blocks) => unsafe {
                    let block = &mut *blocks[i];
                    block[0] = *dc as i16;
                    bits.ac(data, ac_table, |place, value| block[place] = value as i16)?;
                },
                None => bits.ac(data, ac_table, |_, _| ())?,
            }
        }
        self.bits = bits;
        bits.all_read(data).then_some(())
    }
}

/// libjpeg calls this for each MCU, with its blocks, or with null for an MCU to skip. Returning 0 means to
/// wait for more data, which ends the reading of rows.
unsafe extern "C-unwind" fn decode_mcu(
    state: &mut jpeg_decompress_struct,
    blocks: *const *mut Block,
) -> boolean {
    // SAFETY: the caller of `take_over` promised this.
    let scan = unsafe { &mut *state.common.client_data.cast::<Scan>() };
    if scan.gave_up {
        return 0;
    }
    // SAFETY: as above; libjpeg passes as many blocks as the layout says.
    let (data, blocks) = unsafe {
        let count = scan.layout.blocks_in_mcu as usize;
        let blocks = (!blocks.is_null()).then(|| std::slice::from_raw_parts(blocks, count));
        (&*scan.data, blocks)
    };
    scan.gave_up = scan.mcu(data, blocks).is_none();
    boolean::from(!scan.gave_up)
}
