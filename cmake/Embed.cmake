# dr_embed(target symbol folder ext): <symbol>.h in the build folder with
#   struct dr_embedded { const char *name, *text; };  const struct dr_embedded SYMBOL[];
# one row for every folder/*.ext, ended by a row of NULLs. Declared in common/embedded.h.
function(dr_embed target symbol folder ext)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.${ext})
  set(out ${CMAKE_BINARY_DIR}/${symbol}.c)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DSYMBOL=${symbol} "-DFILES=${files}"
            -P ${CMAKE_SOURCE_DIR}/cmake/EmbedRun.cmake
    DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/EmbedRun.cmake VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
