/* The fields of libjpeg's decompressor that scan.rs needs and mozjpeg-sys does not expose. */
#include <stddef.h>
#include <stdio.h>
#define JPEG_INTERNALS
#include "jpeglib.h"

struct block {
  unsigned component, dc_table, ac_table;
};

struct layout {
  const JHUFF_TBL *dc_tables[NUM_HUFF_TBLS], *ac_tables[NUM_HUFF_TBLS];
  struct block blocks[D_MAX_BLOCKS_IN_MCU];
  unsigned blocks_in_mcu, mcus_in_row;
  /* The first and the last MCU of a row that are transformed. */
  unsigned first, last;
  unsigned restart_interval;
};

/* Describes the scan of a decompressor that has started and replaces its entropy decoder by `decode_mcu`.
 * Returns 0, and changes nothing, if there are several scans or the scan is not Huffman-coded. */
int s4l_replace_entropy_decoder(j_decompress_ptr cinfo, struct layout *layout,
                                boolean (*decode_mcu)(j_decompress_ptr, JBLOCKROW *))
{
  int i;

  if (cinfo->progressive_mode || cinfo->arith_code || cinfo->inputctl->has_multiple_scans)
    return 0;
  for (i = 0; i < NUM_HUFF_TBLS; i++) {
    layout->dc_tables[i] = cinfo->dc_huff_tbl_ptrs[i];
    layout->ac_tables[i] = cinfo->ac_huff_tbl_ptrs[i];
  }
  for (i = 0; i < cinfo->blocks_in_MCU; i++) {
    int component = cinfo->MCU_membership[i];
    const jpeg_component_info *info = cinfo->cur_comp_info[component];
    layout->blocks[i].component = component;
    layout->blocks[i].dc_table = info->dc_tbl_no;
    layout->blocks[i].ac_table = info->ac_tbl_no;
  }
  layout->blocks_in_mcu = cinfo->blocks_in_MCU;
  layout->mcus_in_row = cinfo->MCUs_per_row;
  layout->first = cinfo->master->first_iMCU_col;
  layout->last = cinfo->master->last_iMCU_col;
  layout->restart_interval = cinfo->restart_interval;
  cinfo->entropy->decode_mcu = decode_mcu;
  return 1;
}
