# clip_vocab.c: CLIP's merge list as a C table, made by a small program from the list that setup.sh fetched.
if(NOT MYSTI_CLIP_VOCAB OR NOT EXISTS "${MYSTI_CLIP_VOCAB}")
  message(FATAL_ERROR "the CLIP vocabulary is missing: run scripts/setup.sh, or set MYSTI_CLIP_VOCAB to bpe_simple_vocab_16e6.js")
endif()
add_executable(gen_clip_vocab ${CMAKE_CURRENT_LIST_DIR}/gen_clip_vocab.c)
set_target_properties(gen_clip_vocab PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tools)
set(clip_vocab ${CMAKE_BINARY_DIR}/generated/clip_vocab.c)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/generated)
add_custom_command(OUTPUT ${clip_vocab}
  COMMAND gen_clip_vocab ${MYSTI_CLIP_VOCAB} ${clip_vocab}
  DEPENDS gen_clip_vocab ${MYSTI_CLIP_VOCAB}
  COMMENT "Generating the CLIP vocabulary")
