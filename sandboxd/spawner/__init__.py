"""The privileged side: the main process, and init of each sandbox. Standard library only; never imports the daemon."""
