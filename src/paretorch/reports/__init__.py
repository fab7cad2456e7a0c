"""Reports: tables, figures and findings, computed from run folders and never from models."""
