"""What makes and checks the documents: reference pages from the code, terminal sessions from real runs."""
