"""The same template in another format, the same demonstrations with other labels or rationales."""
