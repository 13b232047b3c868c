"""Network policy: three languages read into one model, judged slowly or compiled.

Owns: the meaning of Kubernetes NetworkPolicy, ClusterNetworkPolicy and Calico
policy, from document to compact program.
Never: does I/O, reads a clock, or touches compiled memory; programs are flat
arrays that the data plane copies.
Invariant: the compiled program and the evaluator over uncompiled objects
(`golden`) give the same decision for every connection.
"""
