// Generated from the server's API document by `npm run types`. Not to be edited.

export interface paths {
    "/devices": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Lets the key that signs this request speak for a device.
         * @description The operator decides who may register (`--registration`). By default the first key to register a name has it,
         *     and another device of the user needs a voucher of one that is registered. Registering again with the
         *     same key changes nothing.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    /** @example {
                     *       "device": "main",
                     *       "user": "bob"
                     *     } */
                    "application/json": components["schemas"]["RegisterRequest"];
                };
            };
            responses: {
                /** @description Was registered before */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "device": "main",
                         *       "keyid": "5M-tNLj51PVqgi1z8Cae_UkzfuEynrA_barilVEoNfw",
                         *       "position": 1,
                         *       "user": "bob"
                         *     } */
                        "application/json": components["schemas"]["RegisterReply"];
                    };
                };
                /** @description Registered */
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "device": "main",
                         *       "keyid": "5M-tNLj51PVqgi1z8Cae_UkzfuEynrA_barilVEoNfw",
                         *       "position": 1,
                         *       "user": "bob"
                         *     } */
                        "application/json": components["schemas"]["RegisterReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/devices/credential": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Declares the credential that the device's packages carry, in the place of the Basic credential that names
         *     the device. It may be of any type.
         * @description While packages with another credential are live, no other is declared. It stays when the device's key is
         *     rotated, and ends when the device is removed.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["CredentialRequest"];
                };
            };
            responses: {
                /** @description The device's packages carry it */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeclaredReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/devices/leaf-key": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Declares the key that signs the device's packages of another signature scheme.
         * @description The first package of that scheme can be uploaded then. While packages that one key has signed are live,
         *     no other is declared; `POST /keypackages/rotate` brings another along with another key of the device.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["LeafKeyRequest"];
                };
            };
            responses: {
                /** @description The key signs the device's packages of its scheme */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["LeafKeyReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/devices/recover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Lets the key that signs this request speak for a device, by the word of the user's recovery key, and
         *     removes every other device of the user, all at once.
         * @description It needs nobody's leave but the recovery key's: no voucher, no device that is left, and no token or list of
         *     the operator's. The other devices end as by `POST /devices/remove`, and so does the device itself if
         *     another key speaks for it. Repeating it changes nothing.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["RecoverRequest"];
                };
            };
            responses: {
                /** @description It was so before */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RecoverReply"];
                    };
                };
                /** @description The key speaks for the device, and no other device is left */
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RecoverReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/devices/recovery-key": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sets the recovery key of the caller's user, or another one in its place.
         * @description Any device of a user without a recovery key sets the first. Another one takes its place by a statement of
         *     the recovery key before: so a thief who has a device cannot change it. All recovery keys of a user stand in
         *     the history of the device that set the first, which is the subject of each statement.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["RecoveryKeyRequest"];
                };
            };
            responses: {
                /** @description It is the user's recovery key */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeclaredReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/devices/remove": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Removes a device of the caller's user: no key speaks for it any more, and none that did ever will again.
         *     Its packages are withdrawn, its mailbox is closed, and it is a member of no group of the delivery.
         * @description Its reserved packages can still be spent. Its name stays the user's: it is registered again, with a new
         *     key, by a voucher of another of their devices. The answer names the devices that it had vouched for.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["RemoveRequest"];
                };
            };
            responses: {
                /** @description It is removed */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RemoveReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/devices/rotate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Lets the key that signs this request speak for a device, in place of the one before, which has agreed.
         * @description The packages that the one before has signed are withdrawn with it; those that are reserved can still be
         *     spent. Asking again changes nothing.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["RotateRequest"];
                };
            };
            responses: {
                /** @description The key speaks for the device */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RegisterReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/groups": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Makes a group: the caller is its first member, in epoch 0. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["GroupRequest"];
                };
            };
            responses: {
                /** @description The group is made */
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["GroupReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/groups/{group_id}/commits": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Accepts a Commit, with its Welcomes and the spending of its packages: all of it or nothing.
         * @description The first Commit for an epoch wins. It is an MLSMessage of the group and the epoch. The Welcomes go out
         *     with it, to exactly the owners of the packages, who have seven days to accept the group. The answer names
         *     the members whose mailboxes had no room for it.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path: {
                    /** @description The group's id, base64url without padding */
                    group_id: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["CommitRequest"];
                };
            };
            responses: {
                /** @description It is the group's Commit for this epoch */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["CommitReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/groups/{group_id}/leave": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Ends the caller's membership in the delivery of a group: nothing of it reaches the device any more, and
         *     waiting items are dropped. A device that is no member is answered alike.
         * @description The other members see it in MLS only when one of them commits the removal.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path: {
                    /** @description The group's id, base64url without padding */
                    group_id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device is no member */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["GroupReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/groups/{group_id}/messages": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Passes a message on to the other members' devices: application data or a proposal, as an MLSMessage of
         *     the group. The answer names the members whose mailboxes had no room for it. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path: {
                    /** @description The group's id, base64url without padding */
                    group_id: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["MessageRequest"];
                };
            };
            responses: {
                /** @description It waits for every other member */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["MessageReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/await": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Waits for packages of the targets' devices that have none to hand out now, for 14 days: `GET /mailbox`
         *     names a device in `available` once one has arrived.
         * @description A device that has something to hand out is `available` at once; one that a reservation would be refused of
         *     for another reason is `refused`, with the code of that. Each device counts as a reservation does that finds
         *     nothing. `stop` takes devices off the list. A request that is repeated is answered as of now.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["AwaitRequest"];
                };
            };
            responses: {
                /** @description Which devices are awaited */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["AwaitReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The history of the caller's pool, event by event. */
        get: {
            parameters: {
                query?: {
                    /** @description Tell what comes after this version; 0 for all */
                    after?: number;
                    /** @description How many events at most: 100 unless said, 1000 at most */
                    limit?: number;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The events, in order */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["EventsReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/policy": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Tells who may reserve packages of the caller's pool, and who is a contact of its. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Who may */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PolicyReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        /**
         * Sets who may reserve packages of the caller's pool, and who is a contact of its.
         * @description A contact is a user whose invitation the device has joined: it names the reservation that was spent.
         *     Parts that are left out stay as they are; asking again changes nothing.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["PolicyRequest"];
                };
            };
            responses: {
                /** @description It is so */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PolicyReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/receipt/{reservation_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The signed receipt of a reservation, with the proof that it is in the log.
         * @description A file of text that can be checked offline (docs/api.md). For the holder of the reservation and the
         *     owner of the package.
         */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    /** @description The reservation */
                    reservation_id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The receipt and its proof */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/plain": string;
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/reconcile": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Compares the caller's pool with the packages that the caller takes to be live. Nothing is changed. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A UUID; nothing is kept of it, since nothing is changed */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["ReconcileRequest"];
                };
            };
            responses: {
                /** @description What differs */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ReconcileReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/release": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Gives a package back that the caller holds and will not use. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["ClaimRequest"];
                };
            };
            responses: {
                /** @description The package is not held by this claim */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ReleaseReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/renew": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Gives the caller more time with a package. To be called right before the Commit is posted. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    /** @example {
                     *       "keypackage_ref": "56340e918a45134f5ddd7e3be040ec59cb877cf51fa3d7e73217d124b736d200",
                     *       "reservation_id": "018f2f3e-7c1a-7d3b-9a5e-0123456789ab"
                     *     } */
                    "application/json": components["schemas"]["ClaimRequest"];
                };
            };
            responses: {
                /** @description The claim has more time */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "reservation_expires_at": 1766400060
                         *     } */
                        "application/json": components["schemas"]["RenewReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/report": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Says that a package which the caller holds cannot be used: it is never offered again, and its owner
         *     sees why. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["ReportRequest"];
                };
            };
            responses: {
                /** @description The package is quarantined */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ReportReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/reserve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sets one package of another user aside for the caller.
         * @description With `Accept: message/mls` the answer is the package's bytes, and the rest stands in headers.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    /** @example {
                     *       "ciphersuites": [
                     *         1
                     *       ],
                     *       "group_id": "Z3JvdXAtMQ==",
                     *       "reservation_id": "018f2f3e-7c1a-7d3b-9a5e-0123456789ab",
                     *       "target_user": "bob"
                     *     } */
                    "application/json": components["schemas"]["ReserveRequest"];
                };
            };
            responses: {
                /** @description The package */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "device": "main",
                         *       "generation": 1,
                         *       "keypackage": "AAEAASBAcLtuP/KMFMXG1tX3fq88qw0KXbavdDamn4qMVCSTBiD6Nr7IZQILmnNJ1yZmv5V6IHN2hantYjMx7Rk9/uH9TCDkz600uPnU9WqCLXPwJp79STN+4TKesD9tquKVUSg1/AABA2JvYgIAAQIAAQQACv8BAAIAAQEAAAAAaUkR8AAAAABpW5UAAEBAWmECeZTZWZcu4HlLwq4/Q7CvAWMeF1HUckXs+Ir2Xx6sKEvkyEZ5OP4AhmBZ8KnsthqX1LVGst9TJpiu1R/DDABAQGeEBKbbcuXHCI/wvJuAHMuDREx/+CH+OQ/jwLh7Cu4ykSUABUj0GgL0hzjb35plr8XPsW7j63l3HqnomUIBkgg=",
                         *       "keypackage_ref": "56340e918a45134f5ddd7e3be040ec59cb877cf51fa3d7e73217d124b736d200",
                         *       "last_resort": false,
                         *       "not_after": 1767609600,
                         *       "reservation_expires_at": 1766400060,
                         *       "reservation_id": "018f2f3e-7c1a-7d3b-9a5e-0123456789ab"
                         *     } */
                        "application/json": components["schemas"]["ReserveReply"];
                        "message/mls": string;
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/reserve-many": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sets one package of each device of each target aside for the caller, whose own device is left out.
         * @description Devices without a package to hand out are named in `missing`, with the code that reserving it alone
         *     would be refused with. A request that is repeated, also one that was cut off in the middle, reserves
         *     the packages that are not reserved yet, and tells the others as they were.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["ReserveManyRequest"];
                };
            };
            responses: {
                /** @description The packages, and who has none */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ReserveManyReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Withdraws packages of the caller's pool: they are never offered again. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["RevokeRequest"];
                };
            };
            responses: {
                /** @description They are withdrawn */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RevokeReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/rotate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Takes packages into the caller's pool in the place of the live ones of the same ciphersuites, which are
         *     withdrawn; those that are reserved can still be spent. All of it happens, or nothing.
         * @description A ciphersuite without an acceptable new package keeps its packages; if none of the new ones is acceptable
         *     nothing changes, and the answer is a problem with the same `items`. With `key`, packages of every
         *     ciphersuite are withdrawn, and the key that signs this request and the packages is registered for the device
         *     as well, as by `POST /devices/rotate`: so the pool is never without packages.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["RotatePackagesRequest"];
                };
            };
            responses: {
                /** @description At least one package was acceptable */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RotatePackagesReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/spend": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Uses up a package that the caller holds: the Commit that adds its owner has been posted. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    /** @example {
                     *       "group_id": "Z3JvdXAtMQ==",
                     *       "keypackage_ref": "56340e918a45134f5ddd7e3be040ec59cb877cf51fa3d7e73217d124b736d200",
                     *       "reservation_id": "018f2f3e-7c1a-7d3b-9a5e-0123456789ab"
                     *     } */
                    "application/json": components["schemas"]["SpendRequest"];
                };
            };
            responses: {
                /** @description The package is used up */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "late": false,
                         *       "replayed": false,
                         *       "spent": true
                         *     } */
                        "application/json": components["schemas"]["SpendReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/status": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The counts of the caller's pool, as the next reservation would find them. */
        get: {
            parameters: {
                query?: {
                    /** @description The caller's own user, if it is named at all */
                    user?: string;
                    /** @description The caller's own device, if it is named at all */
                    device?: string;
                    /** @description The number of the refresh that asks: one more for each that the device's home has begun. A number that is not above the last one shows another copy of the home */
                    refresh?: number;
                    /** @description The refresh, by a random id; given with `refresh` */
                    refresh_id?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The pool */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "available": 0,
                         *       "device": "main",
                         *       "device_list_head": "adc19bcd0795662c6aaea85c8b07b85363ac06c9c61e2a4720549bfb3c1f7ae9",
                         *       "digest": "85f226af38c8e722664d53d82fcbe4cdeecfad62856ad6d7d0edec129b522579",
                         *       "expired": 0,
                         *       "expiring_soon": 0,
                         *       "fresh": 0,
                         *       "head": "ad3093be83d72561da4c52adcfce79ca1e760db60f7b1a1f4426bfc0daabfd0a",
                         *       "last_resort": 0,
                         *       "last_upload": 1766400000,
                         *       "other_copy_at_ms": null,
                         *       "pool_health": "empty",
                         *       "position": 6,
                         *       "recommended_action": "upload 32 packages",
                         *       "recommended_upload": 32,
                         *       "requeued": 0,
                         *       "reserved": 0,
                         *       "revoked": 0,
                         *       "seconds_to_empty": 0,
                         *       "spent": 1,
                         *       "spent_24h": 1,
                         *       "suites": [],
                         *       "total": 1,
                         *       "user": "bob",
                         *       "version": 5
                         *     } */
                        "application/json": components["schemas"]["PoolStatus"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/stream": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Streams the history of the caller's pool as it goes on, with notices between: server-sent events.
         * @description It begins after the version in `Last-Event-ID`, or in `after`, or else with the next event. Each event
         *     of the history has its name, its version as its id, and an `EventView` as its data. `low` and `empty`
         *     tell that the pool is so now, also at the beginning; `last_resort_used` that its last-resort package was
         *     given out. The stream ends when the server stops, when the caller's key has ceased to speak for the
         *     device, or when the device has opened two newer ones.
         */
        get: {
            parameters: {
                query?: {
                    /** @description Tell what comes after this version */
                    after?: number;
                };
                header?: {
                    /** @description The same, from a client that comes back; it goes before `after` */
                    "Last-Event-ID"?: number | null;
                };
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The stream */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/event-stream": string;
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/keypackages/upload": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Takes packages into the caller's pool.
         * @description Good ones are kept, bad ones refused one by one, in the order of the request. A single package may
         *     be sent as it is, as `message/mls`. When none is acceptable the answer is a problem with the same
         *     `items`.
         */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    /** @example {
                     *       "keypackages": [
                     *         "AAEAASBAcLtuP/KMFMXG1tX3fq88qw0KXbavdDamn4qMVCSTBiD6Nr7IZQILmnNJ1yZmv5V6IHN2hantYjMx7Rk9/uH9TCDkz600uPnU9WqCLXPwJp79STN+4TKesD9tquKVUSg1/AABA2JvYgIAAQIAAQQACv8BAAIAAQEAAAAAaUkR8AAAAABpW5UAAEBAWmECeZTZWZcu4HlLwq4/Q7CvAWMeF1HUckXs+Ir2Xx6sKEvkyEZ5OP4AhmBZ8KnsthqX1LVGst9TJpiu1R/DDABAQGeEBKbbcuXHCI/wvJuAHMuDREx/+CH+OQ/jwLh7Cu4ykSUABUj0GgL0hzjb35plr8XPsW7j63l3HqnomUIBkgg="
                     *       ]
                     *     } */
                    "application/json": components["schemas"]["UploadRequest"];
                    "message/mls": string;
                };
            };
            responses: {
                /** @description At least one package was acceptable */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        /** @example {
                         *       "accepted": 1,
                         *       "items": [
                         *         {
                         *           "keypackage_ref": "56340e918a45134f5ddd7e3be040ec59cb877cf51fa3d7e73217d124b736d200",
                         *           "outcome": "stored"
                         *         }
                         *       ],
                         *       "pool": {
                         *         "available": 1,
                         *         "expired": 0,
                         *         "fresh": 1,
                         *         "last_resort": 0,
                         *         "requeued": 0,
                         *         "reserved": 0,
                         *         "revoked": 0,
                         *         "spent": 0,
                         *         "suites": [
                         *           {
                         *             "available": 1,
                         *             "ciphersuite": 1,
                         *             "last_resort": 0,
                         *             "reserved": 0
                         *           }
                         *         ],
                         *         "total": 1
                         *       },
                         *       "position": 3
                         *     } */
                        "application/json": components["schemas"]["UploadReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ledger/checkpoint": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The signed state of the log: its name, how many records it has, and the tree hash over them.
         * @description A signed note (C2SP tlog-checkpoint). It was on the server's disk before anyone saw it.
         */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The last checkpoint */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/plain": string;
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ledger/key": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The key that verifies this server's signatures, by its own word.
         * @description The form is C2SP's: `NAME+HASH+BASE64`. A verifier that has it from elsewhere need not believe the server.
         */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The key */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/plain": string;
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ledger/proof/consistency": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Shows that the log of one checkpoint is the beginning of that of another. */
        get: {
            parameters: {
                query: {
                    /** @description How many records the older checkpoint has */
                    from: number;
                    /** @description How many records the newer checkpoint has */
                    to: number;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The hashes */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ConsistencyReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ledger/proof/inclusion": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Shows that a record is in the tree of a checkpoint. */
        get: {
            parameters: {
                query: {
                    /** @description The record's place in the log, from 1 */
                    seq: number;
                    /** @description How many records the checkpoint has */
                    size: number;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The hashes */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["InclusionReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ledger/tile/{path}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A part of the tree that never changes: up to 256 hashes, one after the other (C2SP tlog-tiles). */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    /** @description The level and the index, as in 0/x001/234, with .p/WIDTH behind it for a part of a tile */
                    path: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The hashes */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/octet-stream": string;
                    };
                };
                /** @description There is no such tile */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/ledger/time": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The server's time, signed with the ledger's key for one question.
         * @description A signed note of three lines: `keypool-time-v1`, the nonce, and Unix milliseconds. A device whose clock is
         *     off by more than a day asks for it: the unsigned header `keypool-time` of each answer is not enough then.
         */
        get: {
            parameters: {
                query: {
                    /** @description 16 random bytes, as 32 lower-case hexadecimal digits */
                    nonce: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The time */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/plain": string;
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/livez": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the process answers at all. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description It does */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/plain": string;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/mailbox": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Lists the items that wait for the caller's device, in order. They wait until they are acknowledged. */
        get: {
            parameters: {
                query?: {
                    /** @description Only what comes after this position */
                    after?: number;
                    /** @description How many items, 100 at most */
                    limit?: number;
                    /** @description How many seconds to wait for something to come, 30 at most */
                    wait?: number;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description What waits, in order */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["MailboxReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/mailbox/acknowledge": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Drops the items up to a position: the device has stored them. Accepts the groups that the device has
         *     joined, ends its membership in those that it could not join, and tells their inviters. Notes that the
         *     device was told of the messages that were not kept, and of awaited devices that are available. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["AcknowledgeRequest"];
                };
            };
            responses: {
                /** @description It is forgotten */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["AcknowledgeReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Readiness of the server: its log is replayed, its clock is trusted, and the disk of the log has room. While
         *     that disk is low, a further line names the requests that are refused; in a cluster further lines name the faults
         *     of the stream. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description It is ready */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/plain": string;
                    };
                };
                /** @description Not yet, and why */
                503: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/users/devices": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Lists the devices of several users, as `GET /users/{user}/devices` does of one. */
        post: {
            parameters: {
                query?: never;
                header: {
                    /** @description A new UUID for each new request */
                    "Idempotency-Key": string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["UsersDevicesRequest"];
                };
            };
            responses: {
                /** @description The devices of each user */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["UsersDevicesReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/users/{user}/devices": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Lists the registered devices of a user, with the chain of changes that led to them.
         * @description The changes are those of the keys of all the user's devices, in the order of the log. Each carries the
         *     statement by which a key of the user agreed to it, so that a reader who folds them from the first on finds
         *     each change that was left out, added, or put elsewhere. New statements name the head and the ledger. The
         *     user's recovery key may sign this request too, so that somebody who has no device left can make the
         *     statement that `POST /devices/recover` needs.
         */
        get: {
            parameters: {
                query?: {
                    /** @description The position of the last change that is known */
                    after?: number;
                };
                header?: never;
                path: {
                    /** @description The user */
                    user: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The devices */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DevicesReply"];
                    };
                };
                /** @description Refused */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                /** @description Failed */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description The answer to `POST /mailbox/acknowledge`. */
        AcknowledgeReply: {
            /**
             * Format: int64
             * @description How many items wait still.
             */
            waiting: number;
        };
        /** @description `POST /mailbox/acknowledge`. */
        AcknowledgeRequest: {
            /** @description The groups that the device has joined: until then little of a group waits, for seven days. */
            accepted?: string[];
            /** @description The awaited devices of which the device was told, by `available`, that they have something to hand
             *     out. */
            available?: string[];
            /** @description The groups that the device could not join from their Welcomes: the inviter is told why, and the
             *     device's membership in the delivery ends. Nothing changes for a group that has its answer. */
            failed?: components["schemas"]["FailedWelcome"][];
            /** @description Whether the device has seen `mailbox_overrun`: only then does the mailbox take in again. */
            overrun?: boolean;
            /**
             * Format: int64
             * @description The position of the last item that is safely taken in.
             */
            through: number;
            /** @description The groups of which the device was told, by `not_kept`, that something was not kept. */
            told?: string[];
        };
        /** @description The outcome of an invitation. */
        AnswerItem: {
            /** @description The outcome. */
            outcome: components["schemas"]["AnswerOutcome"];
            /** @description Why the device has not joined, where it has `failed`: `keys_gone`, `expired`, `unreadable` or
             *     `untrusted`. */
            reason?: string | null;
        };
        /**
         * @description The outcome of an invitation, as one word.
         * @enum {string}
         */
        AnswerOutcome: "joined" | "failed" | "declined" | "expired";
        /** @description The answer to `POST /keypackages/await`. */
        AwaitReply: {
            /** @description The devices of each target, in the order of the targets and of the devices' names. */
            devices: components["schemas"]["AwaitedDevice"][];
        };
        /** @description `POST /keypackages/await`: wait for packages of devices that have nothing to hand out now. */
        AwaitRequest: {
            /** @description The devices to wait for no longer, 64 at most, written `user/device`; their places are free for the
             *     targets of the same request. */
            stop?: string[];
            /** @description The invitees to wait for, 64 at most. */
            targets?: components["schemas"]["ReserveTarget"][];
        };
        /**
         * @description Whether a device is awaited.
         * @enum {string}
         */
        AwaitStatus: "waiting" | "available" | "refused";
        /** @description A device that was to be awaited, or a user none of whose devices is known. */
        AwaitedDevice: {
            code?: components["schemas"]["Code"] | null;
            /** @description The device, unless none of the user's is known. */
            device?: string | null;
            /**
             * Format: int64
             * @description When to try again, in seconds, where that is known.
             */
            retry_after_s?: number | null;
            /** @description Whether the caller waits for it. */
            status: components["schemas"]["AwaitStatus"];
            /**
             * Format: int64
             * @description When the caller stops waiting for it, in Unix seconds, where it is `waiting`.
             */
            until?: number | null;
            /** @description The user. */
            user: string;
        };
        /** @description Bytes that travel as base64 with padding (RFC 4648 section 4). */
        Base64: string;
        /** @description `POST /keypackages/renew` and `POST /keypackages/release`. */
        ClaimRequest: {
            /** @description The package. */
            keypackage_ref: string;
            /**
             * Format: uuid
             * @description The claim on it.
             */
            reservation_id: string;
        };
        /**
         * @description A stable error code. `keypool explain CODE` prints its meaning.
         * @enum {string}
         */
        Code: "bad_request" | "invalid_key_package" | "invalid_name" | "unauthenticated" | "not_allowed" | "not_a_member" | "suspended" | "invitee_suspended" | "not_found" | "unknown_user" | "unknown_key_package" | "pool_exhausted" | "nothing_compatible" | "requirement_unmet" | "method_not_allowed" | "request_timeout" | "already_spent" | "reservation_lost" | "reservation_mismatch" | "renewal_limit" | "idempotency_mismatch" | "identity_bound" | "key_retired" | "statement_stale" | "statement_expired" | "recovery_key_bound" | "not_the_recovery_key" | "credential_in_use" | "name_taken" | "too_many_devices" | "expired" | "revoked" | "pool_full" | "epoch_taken" | "unknown_group" | "group_exists" | "invalid_message" | "invitations_full" | "waiting_list_full" | "mailbox_overrun" | "rate_limited" | "too_many_reservations" | "too_large" | "unsupported_media_type" | "internal" | "not_ready" | "log_unavailable" | "clock_regressed" | "clock_leapt" | "busy";
        /** @description The answer to `POST /groups/{group_id}/commits`. */
        CommitReply: {
            /**
             * Format: int64
             * @description The epoch the group is in now.
             */
            epoch: number;
            /** @description The members whose mailboxes had no room for it, the first hundred by name: they are told, and have
             *     to be added again. */
            not_kept?: string[];
            /**
             * Format: int64
             * @description The place of the Commit's last event in the log.
             */
            position: number;
        };
        /** @description `POST /groups/{group_id}/commits`: a Commit, its Welcomes, and the spending of its packages. */
        CommitRequest: {
            /** @description The Commit. */
            commit: components["schemas"]["Base64"];
            /**
             * Format: int64
             * @description The epoch it ends: the first Commit for an epoch wins.
             */
            epoch: number;
            /** @description The devices it removes, written `user/device`. */
            removed?: string[];
            /** @description The packages it uses, by the reservations that hold them. Their owners are members afterwards. */
            spend?: components["schemas"]["ClaimRequest"][];
            /** @description The Welcomes for the new members: for exactly the packages that are spent. */
            welcomes?: components["schemas"]["Base64"][];
        };
        /** @description The answer to `GET /ledger/proof/consistency`: that a tree has only grown. */
        ConsistencyReply: {
            /**
             * Format: int64
             * @description How many records the tree had.
             */
            from: number;
            /** @description The hashes that show it (RFC 6962 section 2.1.2). */
            hashes: components["schemas"]["Base64"][];
            /**
             * Format: int64
             * @description How many it has.
             */
            to: number;
        };
        /** @description `POST /devices/credential`: declare the credential that the device's packages carry. */
        CredentialRequest: {
            /** @description The serialized `Credential` (RFC 9420 section 5.3), base64: its type and its content. */
            credential: string;
            /** @description The head of the user's device list that the statement was made on, hex. */
            head: string;
            /** @description The device's key's signature of the statement `credential`. */
            proof: string;
            /**
             * Format: int64
             * @description When it ends, in Unix seconds: five minutes ahead at most.
             */
            until: number;
        };
        /** @description The answer to `POST /devices/credential`, `POST /devices/recovery-key`. */
        DeclaredReply: {
            /**
             * Format: int64
             * @description The place of the declaration in the log.
             */
            position: number;
        };
        /** @description A package that was set aside, and whose it is. */
        DeviceReservation: components["schemas"]["ReserveReply"] & {
            /** @description The user whose package it is. */
            user: string;
        };
        /** @description The answer to `GET /users/{user}/devices`. */
        DevicesReply: components["schemas"]["UserDevices"] & {
            /** @description The ledgers before it, which earlier statements are for: each restored copy of the data began another. */
            earlier_ledgers?: string[];
            /** @description The ledger that statements are for: the name and key hash of its checkpoints, `NAME+HASH`. */
            ledger: string;
        };
        /** @description One event of a pool's history. */
        EventView: {
            /**
             * Format: int64
             * @description When it was recorded, in Unix milliseconds.
             */
            at_ms: number;
            /**
             * Format: uuid
             * @description The request that caused it.
             */
            command: string;
            /** @description The stored bytes of the envelope: each one's `prev` is the BLAKE3 of the one before. */
            envelope: components["schemas"]["Base64"];
            /** @description The event. */
            event: Record<string, never>;
            /**
             * Format: int64
             * @description Its place in the log.
             */
            position: number;
            /**
             * Format: int64
             * @description Its place in the pool's history, from 1.
             */
            version: number;
        };
        /** @description The answer to `GET /keypackages/events`. */
        EventsReply: {
            /** @description The events, in order. */
            events: components["schemas"]["EventView"][];
            /** @description Whether more follow: ask again after the last version. */
            more: boolean;
        };
        /** @description A group that a device could not join from its Welcome. */
        FailedWelcome: {
            /** @description The group. */
            group_id: string;
            /** @description Why: `keys_gone` for no private keys of any of the Welcome's packages, `expired` for a package whose
             *     lifetime was over, `unreadable` for a damaged Welcome or one that did not open at the last try,
             *     `untrusted` for a group that the device's policy on keys refuses. */
            reason: string;
        };
        /** @description The answer to `POST /groups` and `POST /groups/{group_id}/leave`. */
        GroupReply: {
            /**
             * Format: int64
             * @description The place of the change in the log; 0 if nothing had to change.
             */
            position: number;
        };
        /** @description `POST /groups`: make a group with the caller as its first member, in epoch 0. */
        GroupRequest: {
            /** @description The group's id, drawn at random. */
            group_id: string;
        };
        /** @description The answer to `GET /ledger/proof/inclusion`: that a record is in the tree of a size. */
        InclusionReply: {
            /** @description The hashes beside the way from the leaf to the root, from the leaf up (RFC 6962 section 2.1.1). */
            hashes: components["schemas"]["Base64"][];
            /** @description The hash of the record's leaf. */
            leaf: components["schemas"]["Base64"];
            /**
             * Format: int64
             * @description The record's place in the log, from 1; its leaf is the one before, from 0.
             */
            seq: number;
            /**
             * Format: int64
             * @description How many records the tree has.
             */
            size: number;
        };
        /** @description A user, and how far the caller knows the changes of the user's devices. */
        KnownUser: {
            /**
             * Format: int64
             * @description The position of the last change that the caller knows; 0 for the whole history.
             */
            after?: number;
            /** @description The user. */
            user: string;
        };
        /** @description `last_resort_used`: the last-resort package was given out, since nothing else was left. */
        LastResortNotice: {
            /** @description The package. */
            keypackage_ref: string;
            /**
             * Format: int64
             * @description The version of its reservation.
             */
            version: number;
        };
        /** @description The answer to `POST /devices/leaf-key`. */
        LeafKeyReply: {
            /**
             * Format: int64
             * @description The place of the declaration in the log.
             */
            position: number;
        };
        /** @description `POST /devices/leaf-key`: declare the key that signs the device's packages of a signature scheme. */
        LeafKeyRequest: {
            /** @description The head of the user's device list that the statement was made on, hex. */
            head: string;
            /** @description The public key, as it stands in the leaf. */
            leaf_keyid: string;
            /** @description The device's key's signature of the statement `leaf-key`. */
            proof: string;
            /**
             * Format: int32
             * @description The scheme, RFC 9420 section 5.1.2: 1027 (0x0403) is ECDSA over P-256.
             */
            signature_scheme: number;
            /**
             * Format: int64
             * @description When it ends, in Unix seconds: five minutes ahead at most.
             */
            until: number;
        };
        /** @description `low` and `empty`: the pool is so now. */
        LevelNotice: {
            /** @description How many packages stand where. */
            pool: components["schemas"]["PoolCounts"];
            /** @description `low`, `critical` or `empty`. */
            pool_health: string;
            /**
             * Format: int64
             * @description How many packages to upload now to reach the target.
             */
            recommended_upload: number;
        };
        /** @description Something that waits for a device. */
        MailboxItem: {
            /** @description The devices that a Commit has added, by the packages it has spent. */
            added?: string[];
            answer?: components["schemas"]["AnswerItem"] | null;
            /**
             * Format: int64
             * @description When it was posted, in Unix milliseconds.
             */
            at_ms: number;
            /** @description The bytes that were posted; none for an answer. */
            bytes: components["schemas"]["Base64"];
            /** @description The group. */
            group_id: string;
            /** @description The kind of the item. */
            kind: components["schemas"]["MailboxKind"];
            /**
             * Format: int64
             * @description Its place in the log: acknowledge up to it once it is safely taken in.
             */
            position: number;
            /** @description The devices that a Commit removes by the word of its sender: the server cannot read it. */
            removed?: string[];
            /** @description The device that posted it, or whose answer it is; it is left out for a Welcome, whose Commit names
             *     it to the members. */
            sender?: string | null;
        };
        /**
         * @description The kind of an item in a mailbox.
         * @enum {string}
         */
        MailboxKind: "commit" | "welcome" | "message" | "answer";
        /** @description The answer to `GET /mailbox`. */
        MailboxReply: {
            /**
             * Format: int64
             * @description The position up to which the device has acknowledged. A client whose own records are behind it was
             *     rolled back.
             */
            acknowledged?: number;
            /** @description The awaited devices that have something to hand out, until the device acknowledges that it was
             *     told: `POST /keypackages/await`. */
            available?: string[];
            /** @description The waiting items, in order. */
            items: components["schemas"]["MailboxItem"][];
            /**
             * Format: int64
             * @description The position of the device's last Commit or message; 0 if there is none. A client whose
             *     own records are behind it was rolled back.
             */
            last_posted?: number;
            /** @description Whether more waits: ask again after the last position. */
            more: boolean;
            /** @description The groups of which something was not kept, because their part of the mailbox was full. Nothing
             *     more is kept there until the device acknowledges that it was told. */
            not_kept?: components["schemas"]["NotKept"][];
        };
        /** @description The answer to `POST /groups/{group_id}/messages`. */
        MessageReply: {
            /** @description The members whose mailboxes had no room for it, the first hundred by name: they are told. */
            not_kept?: string[];
            /**
             * Format: int64
             * @description The place of the message in the log; 0 if there is nobody to pass it on to.
             */
            position: number;
        };
        /** @description `POST /groups/{group_id}/messages`. */
        MessageRequest: {
            /** @description The message, as MLS has sealed it. */
            message: components["schemas"]["Base64"];
        };
        /** @description A device, or a user, without a reserved package. */
        MissingDevice: {
            /** @description The code that a reservation of it alone would be refused with. */
            code: components["schemas"]["Code"];
            /** @description The device, unless none of the user's is known. */
            device?: string | null;
            requirement?: components["schemas"]["Requirement"] | null;
            /**
             * Format: int64
             * @description When to try again, in seconds, where that is known.
             */
            retry_after_s?: number | null;
            /** @description The user. */
            user: string;
        };
        /** @description A part of a mailbox that was full. */
        NotKept: {
            /** @description The group. */
            group_id: string;
            /** @description The device whose messages were not kept; left out if nothing of the group was, Commits included:
             *     the device has to be added to the group again. */
            sender?: string | null;
        };
        /**
         * @description The outcome of an uploaded package.
         * @enum {string}
         */
        Outcome: "stored" | "duplicate" | "reserved" | "spent" | "expired" | "revoked" | "rejected";
        /**
         * @description The state of a package, by the server's history.
         * @enum {string}
         */
        PackageState: "available" | "reserved" | "spent" | "expired" | "revoked" | "unknown";
        /** @description The answer to `GET` and `POST /keypackages/policy`. */
        PolicyReply: {
            /** @description The users that are blocked, by name. */
            blocked?: string[];
            /** @description The contacts, by name. */
            contacts: string[];
            /**
             * Format: int64
             * @description The place of the pool's last event in the log.
             */
            position: number;
            /** @description The users who may reserve: `open` for all, or `contacts` alone. */
            reserve: string;
            /**
             * Format: int32
             * @description How many packages strangers may take together in an hour; absent for the server's own limit.
             */
            strangers_per_hour?: number | null;
        };
        /** @description `POST /keypackages/policy`: parts that are left out stay as they are. */
        PolicyRequest: {
            /** @description Users to block: they can neither reserve packages of the pool nor add or post to the device. */
            blocked?: string[];
            /** @description Reservations whose invitations the device has joined: their holders are contacts from now on. */
            joined?: string[];
            /** @description Users that are contacts no more. */
            removed?: string[];
            /** @description The users who may reserve: `open` for all, or `contacts` alone. */
            reserve?: string | null;
            /**
             * Format: int32
             * @description How many packages of the pool strangers may take together in an hour: for a bot that many strangers
             *     ask. 0 for the server's own limit.
             */
            strangers_per_hour?: number | null;
            /** @description Users that are blocked no more. */
            unblocked?: string[];
        };
        /** @description How many single-use packages of a pool stand where; `last_resort` counts the others. */
        PoolCounts: {
            /**
             * Format: int64
             * @description Can be handed out now: `fresh + requeued`.
             */
            available: number;
            /**
             * Format: int64
             * @description Past their lifetime, or too near its end to be handed out.
             */
            expired: number;
            /**
             * Format: int64
             * @description Of these, never handed out before.
             */
            fresh: number;
            /**
             * Format: int64
             * @description Live last-resort packages.
             */
            last_resort: number;
            /**
             * Format: int64
             * @description Of these, handed out before and come back.
             */
            requeued: number;
            /**
             * Format: int64
             * @description Set aside for an inviter.
             */
            reserved: number;
            /**
             * Format: int64
             * @description Withdrawn.
             */
            revoked: number;
            /**
             * Format: int64
             * @description Used by an invitation.
             */
            spent: number;
            /** @description The live packages by ciphersuite, in the order of its number. */
            suites?: components["schemas"]["SuiteCounts"][];
            /**
             * Format: int64
             * @description Ever uploaded: the sum of available, reserved, spent, expired and revoked.
             */
            total: number;
        };
        /** @description The answer to `GET /keypackages/status`. */
        PoolStatus: components["schemas"]["PoolCounts"] & {
            /** @description The device. */
            device: string;
            /** @description The head of the user's device list: it changes with every change of a key of the user. */
            device_list_head?: string;
            /** @description The digest of the live packages: two sides with the same digest agree. */
            digest: string;
            /**
             * Format: int64
             * @description Available packages with less than two days of life left.
             */
            expiring_soon: number;
            /** @description The chain hash of the pool's last event. */
            head: string;
            /**
             * Format: int64
             * @description When packages were last uploaded, in Unix seconds.
             */
            last_upload?: number | null;
            /**
             * Format: int64
             * @description When another copy of the device's home has last refreshed, in Unix milliseconds, if that was noticed within
             *     the last hour.
             */
            other_copy_at_ms?: number | null;
            /** @description `healthy`, `low` (8 or fewer available), `critical` (2 or fewer) or `empty`. */
            pool_health: string;
            /**
             * Format: int64
             * @description The place of the pool's last event in the log.
             */
            position: number;
            /** @description The recommended action, as a sentence. */
            recommended_action: string;
            /**
             * Format: int64
             * @description How many packages to upload now to reach the target; 0 while there are enough.
             */
            recommended_upload: number;
            /**
             * Format: int64
             * @description How long the available packages last at that pace, in seconds.
             */
            seconds_to_empty?: number | null;
            /**
             * Format: int64
             * @description Packages spent in the last 24 hours.
             */
            spent_24h: number;
            /** @description The user. */
            user: string;
            /**
             * Format: int64
             * @description The version of the pool's history.
             */
            version: number;
        };
        /** @description An error as the caller sees it: `application/problem+json` (RFC 9457). */
        Problem: {
            /** @description The admission check that failed. */
            check?: string | null;
            /** @description The stable code. */
            code: components["schemas"]["Code"];
            /** @description The fault of this request, with the package or pool it concerns. */
            detail: string;
            /** @description The next step. */
            hint: string;
            /**
             * Format: int64
             * @description The index of the item of the request that it is about, from 0.
             */
            index?: number | null;
            /** @description The outcome of each package of an upload of which none was acceptable. */
            items?: components["schemas"]["UploadItem"][];
            /** @description The package it is about. */
            keypackage_ref?: string | null;
            /** @description The id of the request, as in `X-Request-Id`: by it the operator finds the request in the log. */
            request_id?: string | null;
            requirement?: components["schemas"]["Requirement"] | null;
            /**
             * Format: int64
             * @description When to try again, in seconds.
             */
            retry_after_s?: number | null;
            /** @description Whether the same request may succeed later. */
            retryable: boolean;
            /**
             * Format: int64
             * @description The time of the server's clock, in Unix seconds, where the caller's does not fit it.
             */
            server_time?: number | null;
            /**
             * Format: int32
             * @description The HTTP status.
             */
            status: number;
            /** @description The meaning of the code, in a few words. */
            title: string;
            /** @description A URI that names the kind of problem: `urn:keypool:` and the code. */
            type: string;
        };
        /** @description The answer to `POST /keypackages/reconcile`. Nothing has changed by it. */
        ReconcileReply: {
            /** @description Whether both sides have the same packages live. */
            agrees: boolean;
            /** @description The digest of the packages that are live here. */
            digest: string;
            /** @description Packages that are live here and were not named. All that are live, where a digest was sent that
             *     is another one. */
            only_here: components["schemas"]["ReconciledPackage"][];
            /** @description Packages that were named and are not live here. */
            only_there: components["schemas"]["ReconciledPackage"][];
            /**
             * Format: int64
             * @description The version of the pool's history that this is said of.
             */
            version: number;
        };
        /** @description `POST /keypackages/reconcile`: the caller's live packages, in exactly one of two ways. */
        ReconcileRequest: {
            /** @description The digest of the packages. */
            digest?: string;
            /** @description The packages themselves. */
            keypackage_refs?: string[];
        };
        /** @description A package that one side alone takes to be live. */
        ReconciledPackage: {
            /** @description The package. */
            keypackage_ref: string;
            /** @description The state of the package, by the server's history. */
            state: components["schemas"]["PackageState"];
        };
        /** @description The answer to `POST /devices/recover`. */
        RecoverReply: {
            /** @description The device. */
            device: string;
            /** @description The key that speaks for it. */
            keyid: string;
            /**
             * Format: int64
             * @description The place of the registration in the log.
             */
            position: number;
            /** @description The other devices that were removed with it, by name. */
            removed: string[];
            /** @description The user. */
            user: string;
        };
        /** @description `POST /devices/recover`: let the key that signs this request speak for a device, by the word of the user's
         *     recovery key, and remove every other device of the user. */
        RecoverRequest: {
            /** @description The device; `main` if it is left out. */
            device?: string | null;
            /** @description The head of the user's device list that the statement was made on, hex. */
            head: string;
            /** @description The recovery key's signature of the statement `recover`. */
            proof: string;
            /** @description The user's recovery key. */
            recovery_keyid: string;
            /**
             * Format: int64
             * @description When it ends, in Unix seconds: ten minutes ahead at most.
             */
            until: number;
            /** @description The user. */
            user: string;
        };
        /** @description `POST /devices/recovery-key`: set the user's recovery key, or another one in its place. */
        RecoveryKeyRequest: {
            /** @description The head of the user's device list that the statement was made on, hex. */
            head: string;
            /** @description The key that agrees: that of the device that asks if the user has no recovery key, and the recovery
             *     key before if there is one. */
            keyid: string;
            /** @description That key's signature of the statement `recovery-key`. */
            proof: string;
            /** @description The public key: Ed25519. */
            recovery_keyid: string;
            /**
             * Format: int64
             * @description When it ends, in Unix seconds: five minutes ahead at most.
             */
            until: number;
        };
        /** @description The answer to `POST /devices`. */
        RegisterReply: {
            /** @description The device. */
            device: string;
            /** @description The key that speaks for it. */
            keyid: string;
            /**
             * Format: int64
             * @description The place of the registration in the log.
             */
            position: number;
            /** @description The user. */
            user: string;
        };
        /** @description `POST /devices`: let the key that signs this request speak for a device. */
        RegisterRequest: {
            /** @description The device; `main` if it is left out. */
            device?: string | null;
            /** @description The device's key, which signs its packages: only in requests of a frontend. Any other request registers
             *     the key that signs it. */
            keyid?: string | null;
            /** @description The user. */
            user: string;
            voucher?: components["schemas"]["Voucher"] | null;
        };
        /** @description The answer to `POST /keypackages/release`. */
        ReleaseReply: {
            /** @description Always true: the package is no longer held by this claim. */
            released: boolean;
        };
        /** @description The answer to `POST /devices/remove`. */
        RemoveReply: {
            /** @description The device. */
            device: string;
            /** @description The user's registered devices that this one has vouched for, directly or through others: remove
             *     them as well if the device was stolen. */
            introduced: string[];
            /**
             * Format: int64
             * @description The place of the last thing that was recorded of it in the log.
             */
            position: number;
            /** @description Always true: no key speaks for it any more, and nobody is given a package of it. */
            removed: boolean;
            /** @description The user. */
            user: string;
        };
        /** @description `POST /devices/remove`: remove a device of the caller's user. */
        RemoveRequest: {
            /** @description The device: the caller's own, or another one of its user. */
            device: string;
        };
        /** @description The answer to `POST /keypackages/renew`. */
        RenewReply: {
            /**
             * Format: int64
             * @description When the claim ends now, in Unix seconds.
             */
            reservation_expires_at: number;
        };
        /**
         * @description The fault of a package: the check that it failed at the inviter's.
         * @enum {string}
         */
        ReportReason: "encoding" | "reference" | "identity" | "lifetime" | "ciphersuite" | "validity" | "keys" | "other";
        /** @description The answer to `POST /keypackages/report`. */
        ReportReply: {
            /** @description Always true: the package is never offered again, and the claim has ended. */
            reported: boolean;
        };
        /** @description `POST /keypackages/report`. */
        ReportRequest: {
            /** @description The package. */
            keypackage_ref: string;
            reason?: components["schemas"]["ReportReason"] | null;
            /**
             * Format: uuid
             * @description The claim on it.
             */
            reservation_id: string;
        };
        /** @description The capabilities that a package must have so that its device can be in a group: those of the group's
         *     `required_capabilities` (RFC 9420 section 11.1), and the credential types of its members. */
        RequiredCapabilities: {
            /** @description The types of credentials; none if it is left out. */
            credentials?: number[];
            /** @description The types of extensions; none if it is left out. */
            extensions?: number[];
            /** @description The types of proposals; none if it is left out. */
            proposals?: number[];
        };
        /** @description One capability that a group requires, by its number. */
        Requirement: {
            /**
             * Format: int32
             * @description A type of extensions.
             */
            extension: number;
        } | {
            /**
             * Format: int32
             * @description A type of proposals.
             */
            proposal: number;
        } | {
            /**
             * Format: int32
             * @description A type of credentials.
             */
            credential: number;
        };
        /** @description The answer to `POST /keypackages/reserve-many`. */
        ReserveManyReply: {
            /** @description The devices without a reservation, and why. */
            missing: components["schemas"]["MissingDevice"][];
            /** @description One package for each device that has one, in the order of the targets and of the devices' names. */
            reservations: components["schemas"]["DeviceReservation"][];
        };
        /** @description `POST /keypackages/reserve-many`. */
        ReserveManyRequest: {
            /** @description The ciphersuites the group can use; any if it is left out. */
            ciphersuites?: number[];
            /** @description The group the invitation is for. */
            group_id: string;
            required?: components["schemas"]["RequiredCapabilities"] | null;
            /**
             * Format: uuid
             * @description A random UUID (version 4). The id of each reservation follows from it and the device.
             */
            reservation_id: string;
            /** @description The invitees; one that is named twice counts once. */
            targets: components["schemas"]["ReserveTarget"][];
        };
        /** @description The answer to `POST /keypackages/reserve`. */
        ReserveReply: {
            /** @description The device whose package it is. */
            device: string;
            /**
             * Format: int32
             * @description How many reservations the package has had, this one included.
             */
            generation: number;
            /** @description The exact bytes its owner uploaded. */
            keypackage: components["schemas"]["Base64"];
            /** @description The package's reference. */
            keypackage_ref: string;
            /** @description Whether it is a last-resort package, which others may be given as well. */
            last_resort: boolean;
            /**
             * Format: int64
             * @description When the package's lifetime ends, in Unix seconds.
             */
            not_after: number;
            /**
             * Format: int64
             * @description When the claim ends, in Unix seconds.
             */
            reservation_expires_at: number;
            /**
             * Format: uuid
             * @description The claim on it.
             */
            reservation_id: string;
        };
        /** @description `POST /keypackages/reserve`. */
        ReserveRequest: {
            /** @description The ciphersuites the group can use; any if it is left out. */
            ciphersuites?: number[];
            /** @description A contact token that a device of the target has signed: `KEYID.UNTIL.PROOF`. */
            contact_token?: string | null;
            /** @description The group the invitation is for. */
            group_id: string;
            required?: components["schemas"]["RequiredCapabilities"] | null;
            /**
             * Format: uuid
             * @description The reservation's id, a random UUID (version 4); the idempotency key if it is left out.
             */
            reservation_id?: string | null;
            /** @description One of the user's devices; one that has a package left if it is left out. */
            target_device?: string | null;
            /** @description The user to invite. */
            target_user: string;
        };
        /** @description A user or a device to invite. */
        ReserveTarget: {
            /** @description A contact token that a device of the user has signed: `KEYID.UNTIL.PROOF`. */
            contact_token?: string | null;
            /** @description One of the user's devices; all of them if it is left out. */
            device?: string | null;
            /** @description The user. */
            user: string;
        };
        /** @description The answer to `POST /keypackages/revoke`. */
        RevokeReply: {
            /** @description The pool afterwards. */
            pool: components["schemas"]["PoolCounts"];
            /**
             * Format: int64
             * @description The place of the last revocation in the log.
             */
            position: number;
            /** @description The packages that are revoked, by this request or before. Spent and expired ones are not. */
            revoked: string[];
        };
        /** @description `POST /keypackages/revoke`: exactly one of the three ways to say which. */
        RevokeRequest: {
            /**
             * @description All live packages.
             * @enum {boolean|null}
             */
            all?: true | null;
            /** @description All live packages of one credential, by its digest as the history shows it. */
            credential_hash?: string;
            /** @description These packages. */
            keypackage_refs?: string[];
            /** @description Why: `rotated` or `withdrawn`. */
            reason: components["schemas"]["RevokeWord"];
        };
        /**
         * @description Why an owner withdraws packages.
         * @enum {string}
         */
        RevokeWord: "rotated" | "withdrawn";
        /** @description The answer to `POST /keypackages/rotate`. */
        RotatePackagesReply: {
            /**
             * Format: int64
             * @description How many packages of this request are in the pool because of it.
             */
            accepted: number;
            /** @description The outcome of each package, in the order of the request. */
            items: components["schemas"]["UploadItem"][];
            /** @description The pool afterwards. */
            pool: components["schemas"]["PoolCounts"];
            /**
             * Format: int64
             * @description The place of the pool's last event in the log.
             */
            position: number;
            /** @description The packages that were withdrawn for them. */
            revoked: string[];
        };
        /** @description `POST /keypackages/rotate`: packages in the place of the live ones of their ciphersuites, or of all with
         *     another key. */
        RotatePackagesRequest: {
            key?: components["schemas"]["RotateRequest"] | null;
            /** @description The packages: each a `KeyPackage`, or an `MLSMessage` that holds one. */
            keypackages: components["schemas"]["Base64"][];
            /** @description The keys of other signature schemes that the new key declares with it: a rotation ends those that
             *     the one before had declared. */
            leaf_keys?: components["schemas"]["LeafKeyRequest"][];
        };
        /** @description `POST /devices/rotate`: let the key that signs this request speak for the device, in place of the one
         *     before. */
        RotateRequest: {
            /** @description The device; `main` if it is left out. */
            device?: string | null;
            /** @description The head of the user's device list that the statement was made on, hex. */
            head: string;
            /** @description The key that speaks for it until now. */
            previous_keyid: string;
            /** @description The previous key's signature of the statement `rotate`. */
            proof: string;
            /**
             * Format: int64
             * @description When it ends, in Unix seconds: five minutes ahead at most.
             */
            until: number;
            /** @description The user. */
            user: string;
        };
        /** @description The answer to `POST /keypackages/spend`. */
        SpendReply: {
            /** @description Whether the claim had lapsed, or the package expired, before it was spent. */
            late: boolean;
            /** @description Whether the same claim had spent it before. */
            replayed: boolean;
            /** @description Always true: the package is used up. */
            spent: boolean;
        };
        /** @description `POST /keypackages/spend`. */
        SpendRequest: {
            /** @description The user who spends the package. May be left out; anyone but the caller is refused. */
            added_by?: string | null;
            /** @description The group it was used for: the one it was reserved for. */
            group_id: string;
            /** @description The package. */
            keypackage_ref: string;
            /**
             * Format: uuid
             * @description The claim on it.
             */
            reservation_id: string;
        };
        /** @description How many live packages of one ciphersuite stand where. A suite of which nothing is live has none. */
        SuiteCounts: {
            /**
             * Format: int64
             * @description Single-use packages that can be handed out now.
             */
            available: number;
            /**
             * Format: int32
             * @description The number of the ciphersuite.
             */
            ciphersuite: number;
            /**
             * Format: int64
             * @description Live last-resort packages: one, or none.
             */
            last_resort: number;
            /**
             * Format: int64
             * @description Single-use packages set aside for an inviter.
             */
            reserved: number;
        };
        /** @description The result of one uploaded package. */
        UploadItem: {
            /** @description The admission check that a rejected one failed. */
            check?: string | null;
            code?: components["schemas"]["Code"] | null;
            /** @description Why, as a sentence. */
            detail?: string | null;
            /** @description Its reference, if the bytes are a package at all. */
            keypackage_ref?: string | null;
            /** @description The outcome. */
            outcome: components["schemas"]["Outcome"];
        };
        /** @description The answer to `POST /keypackages/upload`. */
        UploadReply: {
            /**
             * Format: int64
             * @description How many packages of this request are in the pool because of it.
             */
            accepted: number;
            /** @description The outcome of each package, in the order of the request. */
            items: components["schemas"]["UploadItem"][];
            /** @description The pool afterwards. */
            pool: components["schemas"]["PoolCounts"];
            /**
             * Format: int64
             * @description The place of the last of these packages in the log.
             */
            position: number;
        };
        /** @description `POST /keypackages/upload`. */
        UploadRequest: {
            /** @description The packages: each a `KeyPackage`, or an `MLSMessage` that holds one. */
            keypackages: components["schemas"]["Base64"][];
        };
        /** @description A user's devices, and the changes that led to them. */
        UserDevices: {
            /** @description The user's registered devices, in the order of their names. */
            devices: string[];
            /** @description The head of the list, hex: statements are made on it. */
            head: string;
            /** @description The changes after the position that was asked for, in the order of the log: of the keys of all
             *     devices of the user, also of removed ones. A reader who folds them from the first on comes to `head`. */
            history?: Record<string, never>[];
            /** @description Whether there are more changes: ask again after the position of the last one. */
            more?: boolean;
            /**
             * Format: int64
             * @description The position of the last change in the log.
             */
            position?: number;
            /** @description The user. */
            user: string;
        };
        /** @description The answer to `POST /users/devices`. */
        UsersDevicesReply: {
            /** @description The ledgers before it, which earlier statements are for: each restored copy of the data began another. */
            earlier_ledgers?: string[];
            /** @description The ledger that statements are for: the name and key hash of its checkpoints, `NAME+HASH`. */
            ledger: string;
            /** @description The users that have no history here. */
            unknown: string[];
            /** @description The users, in the order of the request, without those that have no history. */
            users: components["schemas"]["UserDevices"][];
        };
        /** @description `POST /users/devices`: the devices of several users. */
        UsersDevicesRequest: {
            /** @description The users, 256 at most. */
            users: components["schemas"]["KnownUser"][];
        };
        /** @description A voucher: a device of a user vouches for another one of that user. */
        Voucher: {
            /** @description The head of the user's device list that it was made on, hex. */
            head: string;
            /** @description The key of the device that vouches. */
            keyid: string;
            /** @description The key's signature of the statement `vouch`. */
            proof: string;
            /**
             * Format: int64
             * @description When it ends, in Unix seconds: ten minutes ahead at most.
             */
            until: number;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
