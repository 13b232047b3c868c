"""ADD and DEL of the CNI plugin, beside the reference bridge plugin with host-local."""
