/* The stamp of one extension: what kind of build it is, and what it was compiled from.
 *
 * Owns: an ELF note of type 1 under the name "towpath" whose text is
 * FASTPATH_STAMP, "build=<kind> <header>=<digest> ...". setup.py writes the
 * macro and includes this file before everything else in each extension, so no
 * .pyx has to mention it. `readelf --notes` finds it, and so does build.py.
 * Never: adds code or anything the loader has to relocate.
 */

#ifndef FASTPATH_BUILD_H
#define FASTPATH_BUILD_H

__asm__(".pushsection .note.towpath, \"a\", %note\n"
        ".balign 4\n"
        ".long 8\n"                /* bytes of the name */
        ".long 2f - 1f\n"          /* bytes of the text */
        ".long 1\n"                /* type */
        ".asciz \"towpath\"\n"
        "1: .asciz \"fastpath-stamp:" FASTPATH_STAMP "\"\n"
        "2: .balign 4\n"
        ".popsection\n");

#endif
