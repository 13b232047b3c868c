"""The Container Network Interface: what container runtimes ask of a node, and how they are answered.

Owns: nothing itself; call.py is one call, configuration.py what stands on its
stdin, answer.py what is said back, verbs.py what each verb does, server.py the
socket, spool.py the deletions that were asked for while no daemon ran, and
shim/ the small program that runtimes start.
"""
